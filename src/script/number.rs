//! Numbers as C prints them.

/// `%.<digits>g`.
pub fn format_g(x: f64, digits: i32) -> String {
    let mut text = [0u8; 64];
    // SAFETY: the buffer is as long as is said, and the format takes an int and a double.
    let len = unsafe { libc::snprintf(text.as_mut_ptr().cast(), text.len(), c"%.*g".as_ptr(), digits, x) };
    let len = usize::try_from(len).unwrap_or(0).min(text.len() - 1);
    String::from_utf8_lossy(&text[..len]).into_owned()
}

/// A number as an integer of a reply: without its fraction; what no integer can hold, `nan` included, is the least one,
/// as processors convert it.
pub fn integer(x: f64) -> i64 {
    if x < i64::MAX as f64 { x as i64 } else { i64::MIN }
}

/// Appends a number as an argument of a command: an integer without a point, if it is far from the greatest, else with
/// all digits.
pub fn write_argument(x: f64, out: &mut Vec<u8>) {
    const MOST: f64 = (1_u64 << 62) as f64;
    let whole = x as i64;
    if x.abs() <= MOST && whole as f64 == x && (x != 0.0 || x.is_sign_positive()) {
        out.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
    } else {
        out.extend_from_slice(format_g(x, 17).as_bytes());
    }
}
