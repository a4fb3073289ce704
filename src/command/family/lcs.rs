//! LCS: the longest common subsequence of two strings, by the table of the textbook.

use crate::command::ctx::{Ctx, DONE};
use crate::command::spec::{Command, Group::String, flags::*, key, range};
use crate::command::{CommandError, Result, int, is};
use crate::resp::Reply;
use crate::value::ValueRef;

pub(super) const COMMANDS: &[Command] = &[Command::new("lcs", -3, String, lcs)
    .flags(READONLY)
    .keys(&[range(1, 1, 1, key::RO | key::ACCESS)])
    .complexity("O(N*M)")
    .doc(
        "7.0.0",
        "key1 key2#0 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]",
        "Returns the longest common subsequence of two strings.",
    )];

/// Bytes that the table may take (`proto-max-bulk-len` in its default).
const MAX_TABLE: usize = 512 << 20;

#[derive(Default)]
struct Options {
    len: bool,
    ranges: bool,
    with_lengths: bool,
    min_length: usize,
}

fn lcs(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    // Both are looked up before either is refused.
    let (a, b) = (string(ctx, args[1]), string(ctx, args[2]));
    let (a, b) = (a?, b?);
    let mut o = Options::default();
    let mut words = args[3..].iter();
    while let Some(&word) = words.next() {
        if is(word, "idx") {
            o.ranges = true;
        } else if is(word, "len") {
            o.len = true;
        } else if is(word, "withmatchlen") {
            o.with_lengths = true;
        } else if is(word, "minmatchlen") && !words.as_slice().is_empty() {
            o.min_length = usize::try_from(int(words.next().ok_or(CommandError::Syntax)?)?).unwrap_or(0);
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if o.len && o.ranges {
        return Err(CommandError::text("ERR If you want both the length and indexes, please just use IDX."));
    }
    let cells = (a.len() + 1).checked_mul(b.len() + 1).filter(|n| *n <= MAX_TABLE / 4);
    let cells = cells.ok_or(CommandError::text(
        "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
    ))?;
    let table = Table::new(&a, &b, cells);
    let len = table.at(a.len(), b.len()) as usize;
    if o.len {
        ctx.reply.int(len as i64);
    } else if o.ranges {
        show_ranges(ctx.reply, &table, &a, &b, &o, len);
    } else {
        let mut text = vec![0; len];
        let mut left = len;
        table.walk_back(&a, &b, |i, _| {
            left -= 1;
            text[left] = a[i];
        });
        ctx.reply.bulk(&text);
    }
    DONE
}

fn string(ctx: &mut Ctx<'_, '_, '_>, key: &[u8]) -> Result<Vec<u8>> {
    match ctx.db.read(key) {
        None => Ok(Vec::new()),
        Some(ValueRef::String(s)) => Ok(s.to_vec()),
        Some(_) => Err(CommandError::text("ERR The specified keys must contain string values")),
    }
}

/// Lengths of the longest common subsequences of all beginnings.
struct Table {
    lengths: Vec<u32>,
    width: usize,
}

impl Table {
    fn new(a: &[u8], b: &[u8], cells: usize) -> Self {
        let mut table = Self { lengths: vec![0; cells], width: b.len() + 1 };
        let width = table.width;
        for (i, x) in a.iter().enumerate() {
            let (above, row) = table.lengths[i * width..][..2 * width].split_at_mut(width);
            let mut last = 0;
            for ((y, above), len) in b.iter().zip(above.windows(2)).zip(&mut row[1..]) {
                last = if x == y { above[0] + 1 } else { above[1].max(last) };
                *len = last;
            }
        }
        table
    }

    fn at(&self, i: usize, j: usize) -> u32 {
        self.lengths[i * self.width + j]
    }

    /// Shows the positions of one longest common subsequence, the last first.
    fn walk_back(&self, a: &[u8], b: &[u8], mut show: impl FnMut(usize, usize)) {
        let (mut i, mut j) = (a.len(), b.len());
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                (i, j) = (i - 1, j - 1);
                show(i, j);
            } else if self.at(i - 1, j) > self.at(i, j - 1) {
                i -= 1;
            } else {
                j -= 1;
            }
        }
    }
}

/// A run of positions that match without a gap: where it begins in both strings, and its length.
struct Run {
    a: usize,
    b: usize,
    len: usize,
}

fn show_ranges(reply: &mut Reply, table: &Table, a: &[u8], b: &[u8], o: &Options, len: usize) {
    let mut runs: Vec<Run> = Vec::new();
    table.walk_back(a, b, |i, j| match runs.last_mut() {
        Some(run) if (run.a, run.b) == (i + 1, j + 1) => *run = Run { a: i, b: j, len: run.len + 1 },
        _ => runs.push(Run { a: i, b: j, len: 1 }),
    });
    runs.retain(|run| run.len >= o.min_length);
    reply.map(2);
    reply.bulk(b"matches");
    reply.array(runs.len());
    for run in runs {
        reply.array(if o.with_lengths { 3 } else { 2 });
        for start in [run.a, run.b] {
            reply.array(2);
            reply.int(start as i64);
            reply.int((start + run.len - 1) as i64);
        }
        if o.with_lengths {
            reply.int(run.len as i64);
        }
    }
    reply.bulk(b"len");
    reply.int(len as i64);
}
