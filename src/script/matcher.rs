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

/// Inside of the matcher: where a match ends, or one of the two that follow. (A `Result` goes by memory, at each level.)
type End = usize;
const NO_MATCH: End = usize::MAX;
/// The reason is in [`Matcher::fault`].
const FAILED: End = usize::MAX - 1;

/// So many characters are compared between two looks.
const RUN: usize = 64 * 1024;

/// Extents of captures that have no length.
const OPEN: usize = usize::MAX;
const POSITION: usize = usize::MAX - 1;

#[derive(Clone, Copy)]
struct Capture {
    start: usize,
    /// A length in bytes, [`OPEN`] or [`POSITION`].
    extent: usize,
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
    fault: Fault,
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
        let captures = [Capture { start: 0, extent: 0 }; CAPTURES];
        Self { source, pattern, captures, level: 0, depth: 0, fault: Fault::Stopped, spend }
    }

    /// Matches from a place of the text on; returns the place behind the match.
    #[inline]
    pub fn match_at(&mut self, at: usize) -> Result<Option<usize>, Fault> {
        (self.level, self.depth) = (0, 0);
        match self.run(at, 0) {
            NO_MATCH => Ok(None),
            FAILED => Err(self.fault),
            end => Ok(Some(end)),
        }
    }

    /// The first match that begins at one of the places from `from` to `to`: where it begins and ends.
    pub fn first(&mut self, from: usize, to: usize) -> Result<Option<(usize, usize)>, Fault> {
        let single = self.first_item();
        let mut start = from;
        while start <= to {
            if let Some((item, end)) = single {
                // Elsewhere the first item does not match, and nothing behind it is looked at.
                let rest = &self.source[start..self.source.len().min(to + 1).min(start + RUN)];
                let skipped = match item {
                    ESCAPE | b'[' => rest.iter().position(|c| self.is_one(*c, item, 0, end)),
                    item => memchr::memchr(item, rest),
                };
                if !self.step(1 + end * (1 + skipped.unwrap_or(rest.len()) / 16)) {
                    return Err(self.fault);
                }
                let Some(skipped) = skipped else {
                    if start + rest.len() > to || rest.is_empty() {
                        return Ok(None);
                    }
                    start += rest.len();
                    continue;
                };
                start += skipped;
            }
            if let Some(end) = self.match_at(start)? {
                return Ok(Some((start, end)));
            }
            start += 1;
        }
        Ok(None)
    }

    /// The item that each match begins with, and its end, if the pattern begins with one that stands for one character.
    fn first_item(&mut self) -> Option<(u8, usize)> {
        let first = self.item(0);
        let is_plain = match first {
            0 | b'(' | b')' | b'$' | b'.' => false,
            ESCAPE => !matches!(self.item(1), 0 | b'b' | b'f' | b'0'..=b'9'),
            _ => true,
        };
        let end = if is_plain { self.item_end(0, first) } else { FAILED };
        // One that is wrong is told by the match.
        (end != FAILED && !matches!(self.item(end), b'*' | b'?' | b'-')).then_some((first, end))
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
            OPEN => Err(UNFINISHED),
            POSITION => Ok(Captured::Position(start + 1)),
            len => Ok(Captured::Text(&self.source[start..start + len])),
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

    /// Notes so many steps. False: the script is stopped.
    #[inline]
    fn step(&mut self, steps: usize) -> bool {
        let stopped = (self.spend)(steps);
        if stopped {
            self.fault = Fault::Stopped;
        }
        !stopped
    }

    #[cold]
    fn fail(&mut self, fault: Fault) -> End {
        self.fault = fault;
        FAILED
    }

    /// Matches the rest of the pattern, from `p` on, one level deeper.
    fn descend(&mut self, s: usize, p: usize) -> End {
        if self.depth == DEPTH {
            return self.fail(TOO_COMPLEX);
        }
        self.depth += 1;
        let end = self.run(s, p);
        self.depth -= 1;
        end
    }

    fn run(&mut self, mut s: usize, mut p: usize) -> End {
        let begun = p;
        let end = loop {
            let item = self.item(p);
            match item {
                0 => break s,
                b'(' if self.item(p + 1) == b')' => break self.open(s, p + 2, POSITION),
                b'(' => break self.open(s, p + 1, OPEN),
                b')' => break self.close(s, p + 1),
                b'$' if self.item(p + 1) == 0 => break if s == self.source.len() { s } else { NO_MATCH },
                ESCAPE => match self.item(p + 1) {
                    b'b' => {
                        s = self.balanced(s, p + 2);
                        if s >= FAILED {
                            break s;
                        }
                        p += 4;
                        continue;
                    }
                    b'f' => {
                        let end = if self.item(p + 2) == b'[' {
                            self.bracket_end(p + 2)
                        } else {
                            self.fail(NO_SET)
                        };
                        if end == FAILED {
                            break FAILED;
                        }
                        if !self.is_frontier(s, p + 2, end) {
                            break NO_MATCH;
                        }
                        p = end;
                        continue;
                    }
                    digit @ b'0'..=b'9' => {
                        s = self.again(s, digit);
                        if s >= FAILED {
                            break s;
                        }
                        p += 2;
                        continue;
                    }
                    _ => {}
                },
                _ => {}
            }
            let end = self.item_end(p, item);
            if end == FAILED {
                break FAILED;
            }
            let matches = s < self.source.len() && self.is_one(self.source[s], item, p, end);
            match self.item(end) {
                b'?' => {
                    if matches {
                        let found = self.descend(s + 1, end + 1);
                        if found != NO_MATCH {
                            break found;
                        }
                    }
                    p = end + 1;
                }
                b'*' => break self.most(s, item, p, end),
                b'+' if matches => break self.most(s + 1, item, p, end),
                b'-' => break self.least(s, item, p, end),
                _ if !matches => break NO_MATCH,
                _ => (s, p) = (s + 1, end),
            }
        };
        // What was gone through here; deeper levels have told theirs.
        if self.step(1 + (p - begun)) { end } else { FAILED }
    }

    /// Where the single character of a pattern ends that begins at `p`.
    #[inline]
    fn item_end(&mut self, p: usize, item: u8) -> End {
        match item {
            ESCAPE if self.item(p + 1) == 0 => self.fail(ENDS_WITH_ESCAPE),
            ESCAPE => p + 2,
            b'[' => self.bracket_end(p),
            _ => p + 1,
        }
    }

    /// Where the set that begins at `p` ends. Its first character is one of it, whatever it is.
    fn bracket_end(&mut self, p: usize) -> End {
        let mut at = p + 1 + usize::from(self.item(p + 1) == b'^');
        loop {
            let c = self.item(at);
            if c == 0 {
                return self.fail(NO_BRACKET);
            }
            at += 1 + usize::from(c == ESCAPE && self.item(at + 1) != 0);
            if self.item(at) == b']' {
                return at + 1;
            }
        }
    }

    /// What is between the brackets of the set from `p` to `end`.
    #[inline]
    fn set(&self, p: usize, end: usize) -> &'a [u8] {
        &self.pattern[p + 1..end - 1]
    }

    fn is_frontier(&self, s: usize, p: usize, end: usize) -> bool {
        let before = if s == 0 { 0 } else { self.source[s - 1] };
        let set = self.set(p, end);
        !is_in_set(before, set) && is_in_set(self.char(s), set)
    }

    /// Whether a character is what the item from `p` to `end`, which begins with `item`, stands for.
    #[inline]
    fn is_one(&self, c: u8, item: u8, p: usize, end: usize) -> bool {
        match item {
            b'.' => true,
            ESCAPE => is_in_class(c, self.pattern[p + 1]),
            b'[' => is_in_set(c, self.set(p, end)),
            item => item == c,
        }
    }

    /// How many characters from `s` on an item stands for.
    fn span(&mut self, s: usize, item: u8, p: usize, end: usize) -> End {
        let mut to = s;
        while to < self.source.len() {
            let part = &self.source[to..self.source.len().min(to + RUN)];
            let len = match item {
                b'.' => part.len(),
                ESCAPE => {
                    let class = self.pattern[p + 1];
                    part.iter().take_while(|c| is_in_class(**c, class)).count()
                }
                b'[' => {
                    let (set, mut len) = (self.set(p, end), 0);
                    while len < part.len() && is_in_set(part[len], set) {
                        len += 1;
                        // A set may be long, too.
                        if set.len() > RUN && !self.step(set.len()) {
                            return FAILED;
                        }
                    }
                    len
                }
                item => part.iter().take_while(|c| **c == item).count(),
            };
            if !self.step((end - p) * (1 + len / 4)) {
                return FAILED;
            }
            to += len;
            if len < part.len() {
                break;
            }
        }
        to
    }

    /// As many repetitions as there are, and fewer if the rest does not match.
    fn most(&mut self, s: usize, item: u8, p: usize, end: usize) -> End {
        let mut to = self.span(s, item, p, end);
        if to == FAILED {
            return FAILED;
        }
        loop {
            let found = self.descend(to, end + 1);
            if found != NO_MATCH {
                return found;
            }
            if to == s {
                return NO_MATCH;
            }
            to -= 1;
        }
    }

    /// As few repetitions as there can be.
    fn least(&mut self, mut s: usize, item: u8, p: usize, end: usize) -> End {
        loop {
            let found = self.descend(s, end + 1);
            if found != NO_MATCH {
                return found;
            }
            if s == self.source.len() || !self.is_one(self.source[s], item, p, end) {
                return NO_MATCH;
            }
            if !self.step(end - p) {
                return FAILED;
            }
            s += 1;
        }
    }

    fn open(&mut self, s: usize, p: usize, extent: usize) -> End {
        if self.level == CAPTURES {
            return self.fail(TOO_MANY);
        }
        self.captures[self.level] = Capture { start: s, extent };
        self.level += 1;
        let end = self.descend(s, p);
        if end == NO_MATCH {
            self.level -= 1;
        }
        end
    }

    fn close(&mut self, s: usize, p: usize) -> End {
        let Some(open) = self.captures[..self.level].iter().rposition(|c| c.extent == OPEN) else {
            return self.fail(NONE_OPEN);
        };
        self.captures[open].extent = s - self.captures[open].start;
        let end = self.descend(s, p);
        if end == NO_MATCH {
            self.captures[open].extent = OPEN;
        }
        end
    }

    /// `%b`: from the first of two characters to where as many of the second have come.
    fn balanced(&mut self, s: usize, p: usize) -> End {
        let (first, second) = (self.item(p), self.item(p + 1));
        if first == 0 || second == 0 {
            return self.fail(UNBALANCED);
        }
        if self.char(s) != first {
            return NO_MATCH;
        }
        let mut open = 1;
        for at in s + 1..self.source.len() {
            let c = self.source[at];
            if c == second {
                open -= 1;
                if open == 0 {
                    return if self.step((at - s) / 4) { at + 1 } else { FAILED };
                }
            } else if c == first {
                open += 1;
            }
            if at % RUN == 0 && !self.step(RUN / 4) {
                return FAILED;
            }
        }
        if self.step((self.source.len() - s) / 4) { NO_MATCH } else { FAILED }
    }

    /// `%1` to `%9`: what was captured, once more. A position never comes again.
    fn again(&mut self, s: usize, digit: u8) -> End {
        let number = usize::from(digit).checked_sub(usize::from(b'1')).filter(|n| *n < self.level);
        let Some(capture) = number.map(|number| self.captures[number]) else { return self.fail(NO_SUCH) };
        match capture.extent {
            OPEN => self.fail(NO_SUCH),
            POSITION => NO_MATCH,
            len => {
                if !self.step(len / 16) {
                    return FAILED;
                }
                let text = &self.source[capture.start..capture.start + len];
                if self.source[s..].starts_with(text) { s + len } else { NO_MATCH }
            }
        }
    }
}
