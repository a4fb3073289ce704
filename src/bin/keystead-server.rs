//! The server's binary.

use std::process::ExitCode;

use keystead::server::boot;
use keystead::server::process::allocator::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    boot::run()
}
