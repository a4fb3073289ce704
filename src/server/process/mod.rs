//! The process as the operating system sees it.
//!
//! - [`daemon`]: going to the background, the pid file.
//! - [`supervise`]: telling systemd or upstart that the server is ready.
//! - [`affinity`]: on which cores threads run.
//! - [`priority`]: which of them go behind others.
//! - [`limits`]: open files, the out-of-memory score.
//! - [`signals`]: what SIGTERM, SIGINT and the others do.
//! - [`crash`]: the report of a fatal signal or a panic.
//! - [`cli`], [`logging`], [`syslog`]: command line and log.
//! - [`title`]: what ps shows.
//! - [`os_error`]: the system's errors in its words.
//! - [`allocator`]: memory, counted; buffers in small pages.
//!
//! Here are the calls of the C library that need `unsafe`: fork, setsid, dup2, sigaction, rlimits,
//! affinity, priority, the title.
//! Each is in a function of its own that says what makes it sound.
//!
//! The order at the start: read the configuration, [`daemon::to_background`] while there is one
//! thread, [`signals::ignore`] and [`crash::install`], open the log, [`limits::raise_open_files`],
//! [`daemon::PidFile::create`], then threads; [`supervise::Supervisor::ready`] when clients may come.

pub mod affinity;
pub mod allocator;
pub mod cli;
pub mod clock;
pub mod crash;
pub mod daemon;
pub mod limits;
pub mod logging;
pub mod os_error;
pub mod priority;
pub mod signals;
pub mod supervise;
pub mod syslog;
pub mod title;
