//! Errors of the operating system in its own words.

use std::io;

/// The words of the system alone, as strerror(3) gives them and as Redis shows them: without the number
/// that the standard library puts behind them.
pub fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let lookup = "failed to lookup address information: ";
    let text = text.strip_prefix(lookup).unwrap_or(&text);
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_left_out() {
        assert_eq!(words(&io::Error::from_raw_os_error(libc::ENOENT)), "No such file or directory");
        assert_eq!(words(&io::Error::other("a text")), "a text");
    }
}
