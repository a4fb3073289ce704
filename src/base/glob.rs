//! Glob patterns as KEYS, SCAN MATCH, PSUBSCRIBE and CONFIG GET use them.
//! Source: the documentation of KEYS: `?`, `*`, `[ae]`, `[^e]`, `[a-b]`, `\` escapes.

/// Whether `text` matches `pattern` as a whole.
///
/// Backtracks over the last `*` only, so the time is at most `pattern.len() * text.len()`. An empty text matches the empty
/// pattern alone, as in Redis: a `*` as such, where it stands for everything, is the caller's.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    search(pattern, text, false)
}

/// As [`fn@matches`], ASCII letters compared without case.
pub fn matches_nocase(pattern: &[u8], text: &[u8]) -> bool {
    search(pattern, text, true)
}

fn search(pattern: &[u8], text: &[u8], nocase: bool) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    let (mut p, mut t) = (0, 0);
    // Where to resume when a literal run fails: after the last star, one byte further into the text.
    let mut resume: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == b'*' {
            resume = Some((p + 1, t));
            p += 1;
            continue;
        }
        if t == text.len() && p == pattern.len() {
            return true;
        }
        if t < text.len()
            && p < pattern.len()
            && let Some(next) = one(pattern, p, text[t], nocase)
        {
            p = next;
            t += 1;
            continue;
        }
        match resume {
            Some((star, from)) if from < text.len() => {
                resume = Some((star, from + 1));
                p = star;
                t = from + 1;
            }
            _ => return false,
        }
    }
}

/// Matches one pattern element at `p` against `byte`; returns where the pattern goes on.
fn one(pattern: &[u8], p: usize, byte: u8, nocase: bool) -> Option<usize> {
    let fold = |b: u8| if nocase { b.to_ascii_lowercase() } else { b };
    match pattern[p] {
        b'?' => Some(p + 1),
        b'[' => {
            let (hit, next) = class(pattern, p + 1, byte, nocase);
            hit.then_some(next)
        }
        b'\\' if p + 1 < pattern.len() => (fold(pattern[p + 1]) == fold(byte)).then_some(p + 2),
        literal => (fold(literal) == fold(byte)).then_some(p + 1),
    }
}

/// Matches a class whose `[` stands before `p`. An unclosed class ends with the pattern.
fn class(pattern: &[u8], mut p: usize, byte: u8, nocase: bool) -> (bool, usize) {
    let fold = |b: u8| if nocase { b.to_ascii_lowercase() } else { b };
    let byte = fold(byte);
    let negated = pattern.get(p) == Some(&b'^');
    if negated {
        p += 1;
    }
    let mut hit = false;
    while p < pattern.len() && pattern[p] != b']' {
        if pattern[p] == b'\\' && p + 1 < pattern.len() {
            hit |= fold(pattern[p + 1]) == byte;
            p += 2;
        } else if p + 2 < pattern.len() && pattern[p + 1] == b'-' {
            let (a, b) = (fold(pattern[p]), fold(pattern[p + 2]));
            hit |= (a.min(b)..=a.max(b)).contains(&byte);
            p += 3;
        } else {
            hit |= fold(pattern[p]) == byte;
            p += 1;
        }
    }
    (hit != negated, (p + 1).min(pattern.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_the_documentation() {
        for (pattern, text, want) in [
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h\\*llo", "h*llo", true),
            ("h\\*llo", "hello", false),
            ("*", "", false),
            ("**", "", false),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("[z-a]", "m", true),
            ("[abc", "b", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), want, "{pattern} {text}");
        }
        assert!(matches_nocase(b"MAX*", b"maxmemory"));
    }

    #[test]
    fn many_stars_stay_fast() {
        let pattern = b"a*".repeat(50);
        let text = [b'a'; 5000];
        assert!(!matches(&[&pattern[..], b"b"].concat(), &text));
    }
}
