//! The title that `ps` shows (`set-proc-title`, `proc-title-template`): the memory of the command line, written over.
//!
//! The kernel shows the bytes between two addresses that it tells in /proc/self/stat. A title that is longer than
//! the command line was goes on into the environment's strings behind it, which move away first (proc(5)).

use std::ffi::{CStr, c_char};
use std::fs;
use std::io;

use parking_lot::Mutex;

use crate::config::Config;

/// The place of the title. One a process: whoever makes a second one writes over the first.
pub struct Title {
    /// Address and length of what was the command line, and of the environment behind it.
    area: Mutex<(usize, usize)>,
    /// The command's first word.
    program: String,
}

// The C library's own list of the environment.
unsafe extern "C" {
    static mut environ: *mut *mut c_char;
}

impl Title {
    /// Finds the memory, and moves the environment out of it.
    ///
    /// # Safety
    ///
    /// The process has one thread, and nobody reads its arguments afterwards, or keeps a pointer into the
    /// environment from before.
    pub unsafe fn take_over(program: &str) -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/self/stat")?;
        // Behind the name, which may hold anything, the fields count from the third on.
        let fields: Vec<usize> = stat
            .rsplit_once(')')
            .map_or("", |(_, fields)| fields)
            .split(' ')
            .skip(1)
            .map(|field| field.parse().unwrap_or(0))
            .collect();
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
        let (begin, end, env_begin, env_end) = (field(48), field(49), field(50), field(51));
        if begin == 0 || end <= begin {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let end = if env_begin == end && env_end > end { env_end } else { end };
        // SAFETY: there is one thread, and the list is the C library's: pointers up to a null one, each to a
        // text that ends with 0.
        unsafe {
            let mut entry = environ;
            while !entry.is_null() && !(*entry).is_null() {
                if (begin..end).contains(&((*entry) as usize)) {
                    *entry = CStr::from_ptr(*entry).to_owned().into_raw();
                }
                entry = entry.add(1);
            }
        }
        Ok(Self { area: Mutex::new((begin, end - begin)), program: program.to_owned() })
    }

    /// Shows what the template of `config` says. `mode` is `[cluster]`, `[sentinel]` or nothing.
    pub fn show(&self, config: &Config, mode: &str, config_file: &str) {
        if !config.set_proc_title {
            return;
        }
        let text = expand(config, &self.program, mode, config_file);
        let area = self.area.lock();
        let (begin, length) = *area;
        let text = &text.as_bytes()[..text.len().min(length - 1)];
        // SAFETY: the area is the process's, writable and used by nobody else: what the arguments were has been
        // copied, the environment has moved, and the lock keeps other titles out.
        unsafe {
            let begin = begin as *mut u8;
            begin.write_bytes(0, length);
            begin.copy_from_nonoverlapping(text.as_ptr(), text.len());
        }
    }
}

fn expand(config: &Config, program: &str, mode: &str, config_file: &str) -> String {
    let first = config.bind.addresses().next().map_or("*", |(address, _)| address);
    let port = if config.port == 0 { config.tls_port } else { config.port };
    let listens = if port == 0 { config.unixsocket.clone() } else { format!("{first}:{port}") };
    let mut text = config.proc_title_template.clone();
    for (name, value) in [
        ("{title}", program),
        ("{listen-addr}", &listens),
        ("{server-mode}", mode),
        ("{port}", &config.port.to_string()),
        ("{tls-port}", &config.tls_port.to_string()),
        ("{unixsocket}", &config.unixsocket),
        ("{config-file}", config_file),
    ] {
        text = text.replace(name, value);
    }
    text.trim_matches(' ').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_in() {
        let mut config = Config::default();
        (config.port, config.unixsocket) = (7000, "/run/s".into());
        let title = |config: &Config| expand(config, "./server", "[cluster]", "/etc/k.conf");
        assert_eq!(title(&config), "./server *:7000 [cluster]");
        assert_eq!(expand(&config, "s", "", ""), "s *:7000");
        config.proc_title_template = "{config-file} {port}/{tls-port} {unixsocket} {{title} ".into();
        assert_eq!(title(&config), "/etc/k.conf 7000/0 /run/s {./server");
        (config.port, config.proc_title_template) = (0, "{listen-addr}".into());
        assert_eq!(title(&config), "/run/s");
    }
}
