//! Data of modules: named in errors, and skipped where they stand outside the keyspace.

use std::io::Read;

use crate::persist::rdb::error::Result;
use crate::persist::rdb::source::Source;

/// What a field of module data is; each says its kind first, so that a reader without the module can skip it.
mod kind {
    pub const EOF: u64 = 0;
    pub const SIGNED: u64 = 1;
    pub const UNSIGNED: u64 = 2;
    pub const FLOAT: u64 = 3;
    pub const DOUBLE: u64 = 4;
    pub const STRING: u64 = 5;
}

/// The nine characters of a module type's name; they stand in the upper 54 bits of its id, six bits each.
pub(super) fn name(id: u64) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (0..9).map(|i| char::from(ALPHABET[(id >> (58 - 6 * i)) as usize & 63])).collect()
}

/// Skips data that a module keeps outside the keyspace. Returns the module's name.
pub(in crate::persist::rdb) fn skip_module_aux<R: Read>(source: &mut Source<R>) -> Result<String> {
    let id = source.length("the id of a module")?;
    let kind = source.length("the kind of a module field")?;
    if kind != kind::UNSIGNED {
        return source.unexpected("the kind of a module field (2)", kind);
    }
    source.length("the time of a module field")?;
    loop {
        match source.length("the kind of a module field")? {
            kind::EOF => return Ok(name(id)),
            kind::SIGNED | kind::UNSIGNED => {
                source.length("a number of a module")?;
            }
            kind::FLOAT => {
                source.array::<4>("a number of a module")?;
            }
            kind::DOUBLE => {
                source.array::<8>("a number of a module")?;
            }
            kind::STRING => {
                source.string("a string of a module")?;
            }
            other => return source.unexpected("the kind of a module field (0 to 5)", other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_from_its_id() {
        // `A` is 0, `B` is 1, ... in the first nine groups of six bits; the last ten bits are a version.
        let id = (0..9u64).fold(0, |id, i| id << 6 | i) << 10 | 3;
        assert_eq!(name(id), "ABCDEFGHI");
    }

    #[test]
    fn fields_of_all_kinds_are_skipped() {
        let mut bytes = vec![0x81, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1];
        bytes.extend_from_slice(b"\x01\x07\x02\x08\x03abcd\x04abcdefgh\x05\x02hi\x00next");
        let mut source = Source::new(&bytes[..], 64, false);
        assert_eq!(skip_module_aux(&mut source).unwrap(), "AAAAAAAAA");
        assert_eq!(source.bytes(4, "the rest").unwrap(), b"next");
    }
}
