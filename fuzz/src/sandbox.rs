//! Random small programs of Lua over all that scripts can reach, and what the next script must find behind them.

/// Global functions, libraries and their functions.
const NAMES: [&str; 98] = [
    "_G",
    "_VERSION",
    "assert",
    "collectgarbage",
    "error",
    "gcinfo",
    "getfenv",
    "getmetatable",
    "ipairs",
    "load",
    "loadstring",
    "newproxy",
    "next",
    "pairs",
    "pcall",
    "rawequal",
    "rawget",
    "rawset",
    "select",
    "setfenv",
    "setmetatable",
    "tonumber",
    "tostring",
    "type",
    "unpack",
    "xpcall",
    "print",
    "KEYS",
    "ARGV",
    "bit",
    "cjson",
    "cmsgpack",
    "coroutine",
    "math",
    "os",
    "redis",
    "string",
    "struct",
    "table",
    "string.byte",
    "string.char",
    "string.dump",
    "string.find",
    "string.format",
    "string.gfind",
    "string.gmatch",
    "string.gsub",
    "string.len",
    "string.lower",
    "string.match",
    "string.rep",
    "string.reverse",
    "string.sub",
    "string.upper",
    "table.concat",
    "table.foreach",
    "table.foreachi",
    "table.getn",
    "table.insert",
    "table.maxn",
    "table.remove",
    "table.setn",
    "table.sort",
    "coroutine.create",
    "coroutine.resume",
    "coroutine.running",
    "coroutine.status",
    "coroutine.wrap",
    "coroutine.yield",
    "math.floor",
    "math.fmod",
    "math.max",
    "math.random",
    "math.randomseed",
    "math.huge",
    "os.clock",
    "bit.tobit",
    "bit.tohex",
    "bit.lshift",
    "bit.bor",
    "cjson.encode",
    "cjson.decode",
    "cjson.new",
    "cjson.null",
    "cmsgpack.pack",
    "cmsgpack.unpack",
    "cmsgpack.unpack_one",
    "cmsgpack.unpack_limit",
    "struct.pack",
    "struct.unpack",
    "struct.size",
    "redis.error_reply",
    "redis.status_reply",
    "redis.sha1hex",
    "redis.log",
    "redis.setresp",
    "redis.set_repl",
    "redis.acl_check_cmd",
];

const VALUES: [&str; 44] = [
    "nil",
    "true",
    "false",
    "0",
    "1",
    "2",
    "-1",
    "0.5",
    "7",
    "64",
    "1000",
    "2^31",
    "-2^31",
    "2^53",
    "1/0",
    "-1/0",
    "0/0",
    "''",
    "'x'",
    "'a*'",
    "'(a)'",
    "'%b()'",
    "'%f[%a]'",
    "'[^a'",
    "'%'",
    "'\\0'",
    "'%s %d %q'",
    "'__index'",
    "'collect'",
    "'stop'",
    "'n'",
    "'>I4s'",
    "'{\"a\":[1,2]}'",
    "'\\146\\1\\161x'",
    "('ab'):rep(50)",
    "('a'):rep(60000)",
    "'return 1'",
    "'x = 1'",
    "{}",
    "{1, 2, 3}",
    "{a = 1}",
    "{err = 'E'}",
    "{ok = 'O'}",
    "{double = 1}",
];

const COMMANDS: [&str; 16] = [
    "GET", "SET", "DEL", "INCR", "LPUSH", "LRANGE", "HSET", "HGETALL", "ZADD", "EXISTS", "KEYS", "PING",
    "TIME", "NOSUCH", "EVAL", "CLIENT",
];

const METHODS: [&str; 10] = [
    "__index",
    "__newindex",
    "__call",
    "__tostring",
    "__metatable",
    "__gc",
    "__len",
    "__eq",
    "__concat",
    "__mode",
];

/// Makes a program of bytes: each of them decides about something, and at their end all is simple.
pub struct Program<'a> {
    bytes: &'a [u8],
    text: String,
    /// Loops without an end.
    endless: bool,
}

impl<'a> Program<'a> {
    /// The text of a program. `endless`: it need not end.
    pub fn of(bytes: &'a [u8], endless: bool) -> String {
        let mut program =
            Self { bytes, text: "local a, b, c = {}, 'b', function(...) return ... end\n".into(), endless };
        while !program.bytes.is_empty() {
            // An error does not take the rest with it.
            program.text += "pcall(function() ";
            program.statement(0);
            program.text += " end)\n";
        }
        program.text += "return ";
        program.text += ["a", "{a, b}", "b", "c"][program.text.len() % 4];
        program.text
    }

    fn below(&mut self, count: usize) -> usize {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        usize::from(*first) % count
    }

    fn word(&mut self, list: &[&str]) {
        let at = self.below(list.len());
        self.text += list[at];
    }

    /// Writes a pattern, in which `$` is an expression, `@` a statement, `&` a metamethod and `!` a command.
    fn fill(&mut self, pattern: &str, depth: usize) {
        for c in pattern.chars() {
            match c {
                '$' => self.expression(depth + 1),
                '@' => self.statement(depth + 1),
                '&' => self.word(&METHODS),
                '!' => self.word(&COMMANDS),
                c => self.text.push(c),
            }
        }
    }

    fn expression(&mut self, depth: usize) {
        if depth > 4 || self.bytes.is_empty() {
            return self.word(&VALUES);
        }
        match self.below(16) {
            0..=3 => self.word(&VALUES),
            4..=5 => self.word(&["a", "b", "c"]),
            6..=8 => self.word(&NAMES),
            9..=11 => {
                self.text.push('(');
                self.word(&NAMES);
                self.fill(")($, $)", depth);
            }
            12 => self.fill("setmetatable({$}, {& = $, & = $})", depth),
            13 => self.fill("redis.pcall('!', $, $)", depth),
            14 => self.fill("function(...) @ return $, ... end", depth),
            _ => {
                let pattern = [
                    "($)[$]",
                    "($) .. ($)",
                    "($) + ($)",
                    "#($)",
                    "($) == ($)",
                    "($) < ($)",
                    "($)($)",
                    "{$, $, [$] = $}",
                ];
                let at = self.below(pattern.len());
                self.fill(pattern[at], depth);
            }
        }
    }

    fn statement(&mut self, depth: usize) {
        const ENDING: [&str; 22] = [
            "a = $",
            "b = $",
            "c = $",
            "local d = $ a = d",
            "a[$] = $",
            "local t = $ t[$] = $",
            "local t = $ t.x = $",
            "global = $",
            "redis.call('!', $, $)",
            "rawset($, $, $)",
            "getmetatable($).& = $",
            "setfenv($, $)",
            "setmetatable($, {& = $})",
            "loadstring($)($)",
            "table.insert($, $)",
            "local t = {} for i = 1, 300 do t[i] = $ end table.sort(t, $)",
            "for k, v in pairs($) do a = k @ end",
            "for i = 1, 20 do @ end",
            "pcall($, $, $)",
            "xpcall(function() @ error($) end, $)",
            "coroutine.wrap(function() @ coroutine.yield($) end)($)",
            "error($)",
        ];
        const ENDLESS: [&str; 4] = [
            "while true do @ end",
            "while true do pcall(function() @ end) end",
            "local function f() pcall(f) @ pcall(f) end f()",
            "for w in ('a'):rep(40):gmatch(('a*'):rep(20) .. 'b') do @ end",
        ];
        if depth > 3 || self.bytes.is_empty() {
            return self.word(&["a = b", "b = a", "c = a", "a = {}"]);
        }
        if self.endless && self.below(12) == 0 {
            let at = self.below(ENDLESS.len());
            return self.fill(ENDLESS[at], depth);
        }
        let at = self.below(ENDING.len());
        self.fill(ENDING[at], depth);
    }
}

/// Tells all that scripts share, by name and identity; a script that finds it otherwise finds what another has left.
pub const PROBE: &str = "
    local told, type, tostring = {}, type, tostring
    local function tell(name, value)
        if type(value) == 'number' or type(value) == 'string' then value = type(value) .. ':' .. value end
        told[#told + 1] = name .. '=' .. tostring(value)
    end
    for name, value in pairs(_G) do
        if name ~= 'KEYS' and name ~= 'ARGV' then
            tell(name, value)
            if type(value) == 'table' and name ~= '_G' then
                for field, of in pairs(value) do tell(name .. '.' .. tostring(field), of) end
                if next(value) ~= nil then tell(name .. ' has', next(value)) end
            end
        end
    end
    table.sort(told)
    tell('raw', next(_G))
    tell('environment', getfenv(1) == getfenv(loadstring('return 1')) and getfenv(0) == _G)
    tell('compiled', loadstring('return tostring(5)')())
    tell('method', ('x').rep == string.rep)
    tell('coroutine', coroutine.wrap(function() return getfenv(1) == _G end)())
    tell('metatables', getmetatable(''))
    tell('of values', getmetatable(1) or getmetatable(nil) or getmetatable(tostring) or getmetatable(true))
    return table.concat(told, ' ')";
