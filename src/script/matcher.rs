//! The matcher of Lua's patterns, which can be stopped at any step.
//! Source: the reference manual of Lua 5.1, section 5.4.1.

use std::ffi::CStr;

/// Captures that a pattern may have.
const CAPTURES: usize = 32;

/// How deep a pattern may lead the matcher: one level for each item that repeats or captures. A level takes less than
/// 500 bytes of a thread's stack.
const DEPTH: usize = 1000;

const ESCAPE: u8 = b'%';

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The pattern is wrong; what is wrong with it.
    Pattern(&'static CStr),
    /// Somebody has stopped the script.
    Stopped,
}

const ENDS_WITH_ESCAPE: Fault = Fault::Pattern(c"malformed pattern (ends with '%')");
const NO_BRACKET: Fault = Fault::Pattern(c"malformed pattern (missing ']')");
const NO_SET: Fault = Fault::Pattern(c"missing '[' after '%f' in pattern");
const UNBALANCED: Fault = Fault::Pattern(c"unbalanced pattern");
const TOO_MANY: Fault = Fault::Pattern(c"too many captures");
const NO_SUCH: Fault = Fault::Pattern(c"invalid capture index");
const NONE_OPEN: Fault = Fault::Pattern(c"invalid pattern capture");
const UNFINISHED: Fault = Fault::Pattern(c"unfinished capture");
const TOO_COMPLEX: Fault = Fault::Pattern(c"pattern too complex");

/// Where a match ends, if there is one.
type Matched = Result<Option<usize>, Fault>;

#[derive(Clone, Copy)]
enum Extent {
    Open,
    Position,
    Len(usize),
}

#[derive(Clone, Copy)]
struct Capture {
    start: usize,
    extent: Extent,
}

/// What a capture holds.
pub(super) enum Captured<'a> {
    Text(&'a [u8]),
    /// Counted from 1.
    Position(usize),
}

/// Matches one text with one pattern. `S` is told of steps, and says when to stop. It owns nothing: errors of Lua's may
/// leave the functions that hold it.
pub(super) struct Matcher<'a, S> {
    source: &'a [u8],
    pattern: &'a [u8],
    captures: [Capture; CAPTURES],
    level: usize,
    depth: usize,
    spend: S,
}

/// Whether a character is in a class, by the letter of the class. Other characters stand for themselves.
fn is_in_class(c: u8, class: u8) -> bool {
    let is = match class.to_ascii_lowercase() {
        b'a' => c.is_ascii_alphabetic(),
        b'c' => c.is_ascii_control(),
        b'd' => c.is_ascii_digit(),
        b'l' => c.is_ascii_lowercase(),
        b'p' => c.is_ascii_punctuation(),
        b's' => matches!(c, b' ' | b'\t'..=b'\r'),
        b'u' => c.is_ascii_uppercase(),
        b'w' => c.is_ascii_alphanumeric(),
        b'x' => c.is_ascii_hexdigit(),
        b'z' => c == 0,
        _ => return class == c,
    };
    is == class.is_ascii_lowercase()
}

/// Whether a character is in a set: what stands between `[` and `]`.
fn is_in_set(c: u8, set: &[u8]) -> bool {
    let (items, found) = set.strip_prefix(b"^").map_or((set, true), |items| (items, false));
    let mut at = 0;
    while let Some(&item) = items.get(at) {
        if item == ESCAPE {
            // The end of the set is where an escape that ends it points to.
            if is_in_class(c, items.get(at + 1).copied().unwrap_or(b']')) {
                return found;
            }
            at += 2;
        } else if let Some([b'-', last]) = items.get(at + 1..at + 3) {
            if (item..=*last).contains(&c) {
                return found;
            }
            at += 3;
        } else if item == c {
            return found;
        } else {
            at += 1;
        }
    }
    !found
}

impl<'a, S: FnMut(usize) -> bool> Matcher<'a, S> {
    /// As in C, a pattern ends where it has a NUL.
    pub fn new(source: &'a [u8], pattern: &'a [u8], spend: S) -> Self {
        let none = Capture { start: 0, extent: Extent::Open };
        Self { source, pattern, captures: [none; CAPTURES], level: 0, depth: 0, spend }
    }

    /// Matches from a place of the text on; returns the place behind the match.
    #[inline]
    pub fn match_at(&mut self, at: usize) -> Matched {
        (self.level, self.depth) = (0, 0);
        self.run(at, 0)
    }

    /// Captures of the last match.
    pub fn count(&self) -> usize {
        self.level
    }

    /// A capture of the last match, which began and ended at these places; number 0 without a capture is all of it.
    pub fn capture(&self, number: usize, start: usize, end: usize) -> Result<Captured<'a>, Fault> {
        if number >= self.level {
            return if number == 0 { Ok(Captured::Text(&self.source[start..end])) } else { Err(NO_SUCH) };
        }
        let Capture { start, extent } = self.captures[number];
        match extent {
            Extent::Open => Err(UNFINISHED),
            Extent::Position => Ok(Captured::Position(start + 1)),
            Extent::Len(len) => Ok(Captured::Text(&self.source[start..start + len])),
        }
    }

    /// Of the pattern, which ends with a NUL.
    #[inline]
    fn item(&self, at: usize) -> u8 {
        self.pattern.get(at).copied().unwrap_or(0)
    }

    /// Of the text, behind which there is a NUL.
    #[inline]
    fn char(&self, at: usize) -> u8 {
        self.source.get(at).copied().unwrap_or(0)
    }

    #[inline]
    fn step(&mut self, steps: usize) -> Result<(), Fault> {
        if (self.spend)(steps) { Err(Fault::Stopped) } else { Ok(()) }
    }

    /// Matches the rest of the pattern, from `p` on, one level deeper.
    fn descend(&mut self, s: usize, p: usize) -> Matched {
        if self.depth == DEPTH {
            return Err(TOO_COMPLEX);
        }
        self.depth += 1;
        let matched = self.run(s, p);
        self.depth -= 1;
        matched
    }

    fn run(&mut self, mut s: usize, mut p: usize) -> Matched {
        loop {
            self.step(1)?;
            match (self.item(p), self.item(p + 1)) {
                (0, _) => return Ok(Some(s)),
                (b'(', b')') => return self.open(s, p + 2, Extent::Position),
                (b'(', _) => return self.open(s, p + 1, Extent::Open),
                (b')', _) => return self.close(s, p + 1),
                (ESCAPE, b'b') => {
                    let Some(end) = self.balanced(s, p + 2)? else { return Ok(None) };
                    (s, p) = (end, p + 4);
                }
                (ESCAPE, b'f') => {
                    let end = self.set_end(p + 2)?;
                    if !self.is_frontier(s, p + 2, end) {
                        return Ok(None);
                    }
                    p = end;
                }
                (ESCAPE, digit @ b'0'..=b'9') => {
                    let Some(end) = self.again(s, digit)? else { return Ok(None) };
                    (s, p) = (end, p + 2);
                }
                (b'$', 0) => return Ok((s == self.source.len()).then_some(s)),
                _ => {
                    let end = self.item_end(p)?;
                    let matches = s < self.source.len() && self.is_one(s, p, end);
                    match self.item(end) {
                        b'?' => {
                            if matches && let Some(end) = self.descend(s + 1, end + 1)? {
                                return Ok(Some(end));
                            }
                            p = end + 1;
                        }
                        b'*' => return self.most(s, p, end),
                        b'+' if matches => return self.most(s + 1, p, end),
                        b'-' => return self.least(s, p, end),
                        _ if !matches => return Ok(None),
                        _ => (s, p) = (s + 1, end),
                    }
                }
            }
        }
    }

    /// Where the single character of a pattern ends that begins at `p`.
    #[inline]
    fn item_end(&mut self, p: usize) -> Result<usize, Fault> {
        match self.item(p) {
            ESCAPE if self.item(p + 1) == 0 => Err(ENDS_WITH_ESCAPE),
            ESCAPE => Ok(p + 2),
            b'[' => self.bracket_end(p),
            _ => Ok(p + 1),
        }
    }

    /// Where the set that begins at `p` ends. Its first character is one of it, whatever it is.
    fn bracket_end(&mut self, p: usize) -> Result<usize, Fault> {
        let mut at = p + 1 + usize::from(self.item(p + 1) == b'^');
        loop {
            let c = self.item(at);
            if c == 0 {
                return Err(NO_BRACKET);
            }
            at += 1 + usize::from(c == ESCAPE && self.item(at + 1) != 0);
            if self.item(at) == b']' {
                self.step(at - p)?;
                return Ok(at + 1);
            }
        }
    }

    /// The end of the set that `%f` must have.
    fn set_end(&mut self, p: usize) -> Result<usize, Fault> {
        if self.item(p) == b'[' { self.bracket_end(p) } else { Err(NO_SET) }
    }

    /// What is between the brackets of the set from `p` to `end`.
    fn set(&self, p: usize, end: usize) -> &'a [u8] {
        &self.pattern[p + 1..end - 1]
    }

    fn is_frontier(&self, s: usize, p: usize, end: usize) -> bool {
        let before = if s == 0 { 0 } else { self.source[s - 1] };
        let set = self.set(p, end);
        !is_in_set(before, set) && is_in_set(self.char(s), set)
    }

    /// Whether the character at `s`, which is there, is what the item from `p` to `end` stands for.
    #[inline]
    fn is_one(&self, s: usize, p: usize, end: usize) -> bool {
        let c = self.source[s];
        match self.item(p) {
            b'.' => true,
            ESCAPE => is_in_class(c, self.item(p + 1)),
            b'[' => is_in_set(c, self.set(p, end)),
            item => item == c,
        }
    }

    /// As many repetitions as there are, and fewer if the rest does not match.
    fn most(&mut self, s: usize, p: usize, end: usize) -> Matched {
        let mut to = s;
        if self.item(p) == b'.' {
            to = self.source.len();
        }
        while to < self.source.len() && self.is_one(to, p, end) {
            self.step(end - p)?;
            to += 1;
        }
        loop {
            if let Some(found) = self.descend(to, end + 1)? {
                return Ok(Some(found));
            }
            if to == s {
                return Ok(None);
            }
            to -= 1;
        }
    }

    /// As few repetitions as there can be.
    fn least(&mut self, mut s: usize, p: usize, end: usize) -> Matched {
        loop {
            if let Some(found) = self.descend(s, end + 1)? {
                return Ok(Some(found));
            }
            if s == self.source.len() || !self.is_one(s, p, end) {
                return Ok(None);
            }
            self.step(end - p)?;
            s += 1;
        }
    }

    fn open(&mut self, s: usize, p: usize, extent: Extent) -> Matched {
        let capture = self.captures.get_mut(self.level).ok_or(TOO_MANY)?;
        *capture = Capture { start: s, extent };
        self.level += 1;
        let matched = self.descend(s, p)?;
        if matched.is_none() {
            self.level -= 1;
        }
        Ok(matched)
    }

    fn close(&mut self, s: usize, p: usize) -> Matched {
        let open = self.captures[..self.level].iter().rposition(|c| matches!(c.extent, Extent::Open));
        let open = open.ok_or(NONE_OPEN)?;
        self.captures[open].extent = Extent::Len(s - self.captures[open].start);
        let matched = self.descend(s, p)?;
        if matched.is_none() {
            self.captures[open].extent = Extent::Open;
        }
        Ok(matched)
    }

    /// `%b`: from the first of two characters to where as many of the second have come.
    fn balanced(&mut self, mut s: usize, p: usize) -> Matched {
        let (first, second) = (self.item(p), self.item(p + 1));
        if first == 0 || second == 0 {
            return Err(UNBALANCED);
        }
        if self.char(s) != first {
            return Ok(None);
        }
        let mut open = 1;
        while s + 1 < self.source.len() {
            s += 1;
            self.step(1)?;
            let c = self.source[s];
            if c == second {
                open -= 1;
                if open == 0 {
                    return Ok(Some(s + 1));
                }
            } else if c == first {
                open += 1;
            }
        }
        Ok(None)
    }

    /// `%1` to `%9`: what was captured, once more. A position never comes again.
    fn again(&mut self, s: usize, digit: u8) -> Matched {
        let number = usize::from(digit).checked_sub(usize::from(b'1')).filter(|n| *n < self.level);
        let capture = self.captures[number.ok_or(NO_SUCH)?];
        let len = match capture.extent {
            Extent::Open => return Err(NO_SUCH),
            Extent::Position => return Ok(None),
            Extent::Len(len) => len,
        };
        self.step(len / 16)?;
        let text = &self.source[capture.start..capture.start + len];
        Ok(self.source[s..].starts_with(text).then_some(s + len))
    }
}
