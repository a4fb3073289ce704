//! The server's binary.

use keystead::config::file::load;
use keystead::server::allocator::Counting;
use keystead::server::start;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let text = args.join(" ").replace("--", "\n");
    let loaded = load(text.as_bytes(), false, &mut |_| Ok(vec![])).unwrap_or_else(|e| {
        eprint!("{e}");
        std::process::exit(1);
    });
    if let Err(e) = start::serve(loaded.config, &[]) {
        eprintln!("{e}");
        std::process::exit(1);
    }
}
