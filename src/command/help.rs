//! The HELP subcommand of containers, written from what the subcommands declare.

use super::spec::Command;
use super::syntax;
use crate::resp::Reply;

/// Answers HELP for `container`.
pub fn help(reply: &mut Reply, container: &str, subcommands: &[Command]) {
    let mut lines = vec![format!(
        "{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        container.to_ascii_uppercase()
    )];
    for sub in subcommands.iter().filter(|s| s.name != "help") {
        let arguments = syntax::shown(&syntax::arguments(sub.syntax));
        lines.push(format!("{} {arguments}", sub.name.to_ascii_uppercase()).trim_end().to_owned());
        lines.push(format!("    {}", sub.summary));
    }
    lines.extend(["HELP".to_owned(), "    Prints this help.".to_owned()]);
    reply.array(lines.len());
    for line in &lines {
        reply.simple(line);
    }
}
