//! The server's binary.

use std::process::ExitCode;

use keystead::server::allocator::Counting;
use keystead::server::boot;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    boot::run()
}
