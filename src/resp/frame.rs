//! How values are framed on the wire, in requests, in replies and in the log.

/// Appends a type and a length, or a number: `$12\r\n`.
#[inline]
pub fn head(out: &mut Vec<u8>, kind: u8, n: i64) {
    if (0..10).contains(&n) {
        out.extend_from_slice(&[kind, b'0' + n as u8, b'\r', b'\n']);
    } else if (10..100).contains(&n) {
        out.extend_from_slice(&[kind, b'0' + (n / 10) as u8, b'0' + (n % 10) as u8, b'\r', b'\n']);
    } else {
        out.push(kind);
        out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends a bulk string.
#[inline]
pub fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() + 26);
    head(out, b'$', bytes.len() as i64);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends a command as an array of bulk strings.
pub fn write_command<A: AsRef<[u8]>>(out: &mut Vec<u8>, args: &[A]) {
    head(out, b'*', args.len() as i64);
    for arg in args {
        bulk(out, arg.as_ref());
    }
}
