//! The relay as a process: start it, measure it from outside, kill it, start it again.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpSocket;

/// How long the relay may take until it is ready.
const STARTING: Duration = Duration::from_secs(60);

/// How long the relay may take until it has ended after SIGTERM.
const STOPPING: Duration = Duration::from_secs(15);

/// How often children are looked for; a workshop job takes longer.
const CHILD_SAMPLE: Duration = Duration::from_millis(5);

/// The relay's executable: `RECONVERGE_BIN`, or else what `cargo build --release` (or without
/// it) left in the target directory that the running program lies in.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn relay_executable() -> PathBuf {
    if let Some(path) = std::env::var_os("RECONVERGE_BIN") {
        return path.into();
    }
    let target = target_directory();
    let candidates = ["release", "debug"].map(|profile| target.join(profile).join("reconverge"));
    let found = candidates.iter().find(|path| path.is_file());
    found.cloned().unwrap_or_else(|| {
        panic!(
            "no relay at {}: run `cargo build --release -p reconverge-server`, or set RECONVERGE_BIN",
            candidates[0].display()
        )
    })
}

/// Cargo's target directory, as the place of the running program shows it; the directory for
/// temporary files if it lies elsewhere.
#[must_use]
pub fn target_directory() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let profile = program
        .ancestors()
        .find(|path| path.ends_with("release") || path.ends_with("debug"));
    profile
        .and_then(Path::parent)
        .map_or_else(std::env::temp_dir, Path::to_owned)
}

/// What a process used, as the operating system counts it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// CPU time of the process itself, user and system.
    pub cpu: Duration,
    /// The part of it that was spent in the kernel: sockets and the disk.
    pub cpu_kernel: Duration,
    /// CPU time of its children that have ended.
    pub cpu_children: Duration,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// The most resident memory so far, in bytes.
    pub peak_bytes: u64,
}

/// A relay. Killed, and its data removed, when dropped.
#[derive(Debug)]
pub struct Relay {
    child: Child,
    port: u16,
    /// Keeps others from getting the port while the relay does not run.
    _reserved: TcpSocket,
    data: PathBuf,
    arguments: Vec<String>,
    /// Most open files that it may have, if not as many as this process.
    files_max: Option<u32>,
    directory: tempfile::TempDir,
}

impl Relay {
    /// Starts a relay on a free port, its data in a fresh directory.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a relay with more arguments.
    ///
    /// # Panics
    /// When it does not become ready; what it logged is printed.
    #[must_use]
    pub fn start_with(arguments: &[&str]) -> Self {
        Self::start_limited(arguments, None)
    }

    /// The same with so many open files at most, sockets among them.
    ///
    /// # Panics
    /// As [`start_with`](Self::start_with).
    #[must_use]
    pub fn start_limited(arguments: &[&str], files_max: Option<u32>) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("reconverge-")
            .tempdir()
            .unwrap();
        let data = directory.path().join("data");
        let arguments: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
        let (reserved, port) = reserve_port();
        let (child, port) = spawn(port, &data, &arguments, files_max, directory.path());
        Self {
            child,
            port,
            _reserved: reserved,
            data,
            arguments,
            files_max,
            directory,
        }
    }

    /// Where clients connect.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/", self.port)
    }

    /// The process's id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The directory of its data.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Bytes of all files in the data directory.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        bytes_below(&self.data)
    }

    /// Ends it at once, as a power cut ends it (except that the operating system lives on).
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits until it has; `None` if it did not in time and was killed.
    pub fn terminate(&mut self) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        self.until_ended()
    }

    /// Asks it to end.
    pub fn ask_to_end(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits until it has ended, after it was asked to; `None` if it did not in time and was
    /// killed.
    pub fn until_ended(&mut self) -> Option<ExitStatus> {
        let status = ended(&mut self.child, STOPPING);
        if status.is_none() {
            self.kill();
        }
        status
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        // A relay that died by itself is found out by whoever talks to it.
        let _ = kill_process(pid, signal);
    }

    /// What it has written to stderr can be read while it does not run, too.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        log_path(self.directory.path())
    }

    /// Starts it again after it ended, on the same data and the same port.
    ///
    /// # Panics
    /// As [`start_with`](Self::start_with).
    pub fn start_again(&mut self) {
        let (child, port) = spawn(
            self.port,
            &self.data,
            &self.arguments,
            self.files_max,
            self.directory.path(),
        );
        self.child = child;
        self.port = port;
    }

    /// [`terminate`](Self::terminate) and [`start_again`](Self::start_again); whether it ended by
    /// itself, and with success.
    #[must_use]
    pub fn restart(&mut self) -> bool {
        let status = self.terminate();
        self.start_again();
        status.is_some_and(|status| status.success())
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The last of what it has written to stderr since it was first started.
    #[must_use]
    pub fn log(&self) -> String {
        log_tail(self.directory.path())
    }

    /// What it has used since it was last started.
    #[must_use]
    pub fn usage(&self) -> Usage {
        usage_of(self.child.id()).unwrap_or_default()
    }

    /// Makes [`Usage::peak_bytes`] count from here.
    pub fn forget_peak(&self) {
        let path = format!("/proc/{}/clear_refs", self.child.id());
        std::fs::write(path, "5").expect("the peak of one's own child can be reset");
    }

    /// Whether a child of it is at work.
    #[must_use]
    pub fn is_building(&self) -> bool {
        children_of(self.child.id()).into_iter().any(is_at_work)
    }

    /// Stops a child of it, until [`Self::continue_child`]; `None` if none is at work.
    #[must_use]
    pub fn stop_child(&self) -> Option<u32> {
        let mut children = children_of(self.child.id()).into_iter();
        let child = children.find(|child| is_at_work(*child))?;
        let pid = Pid::from_raw(child.cast_signed())?;
        kill_process(pid, Signal::STOP).ok()?;
        // It may have ended, or not have begun, when the signal came.
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).ok()?;
        let state = stat.rsplit_once(") ")?.1.chars().next()?;
        let name = std::fs::read_to_string(format!("/proc/{child}/cmdline")).ok()?;
        if state == 'T' && name.contains("workshop") {
            return Some(child);
        }
        let _ = kill_process(pid, Signal::CONT);
        None
    }

    /// Lets a child that was stopped go on.
    pub fn continue_child(&self, child: u32) {
        let _ = kill_process(Pid::from_raw(child.cast_signed()).unwrap(), Signal::CONT);
    }

    /// Watches the relay's children until the watch ends.
    #[must_use]
    pub fn watch_children(&self) -> ChildWatch {
        ChildWatch::start(self.child.id())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the relay's log:\n{}", self.log());
        }
    }
}

/// A free port that only who binds it by number, with `SO_REUSEADDR`, can listen on: the relay. A
/// port of its own choice lies among those from which the system takes one for each connection that
/// goes out, and any process may have got it until the relay is started again.
fn reserve_port() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

fn log_path(directory: &Path) -> PathBuf {
    directory.join("relay.log")
}

fn spawn(
    port: u16,
    data: &Path,
    arguments: &[String],
    files_max: Option<u32>,
    directory: &Path,
) -> (Child, u16) {
    let log = File::options()
        .create(true)
        .append(true)
        .open(log_path(directory))
        .unwrap();
    let mut command = match files_max {
        None => Command::new(relay_executable()),
        Some(max) => {
            // The shell becomes the relay, so the process id is the relay's.
            let mut shell = Command::new("sh");
            let script = format!("ulimit -n {max} && exec \"$0\" \"$@\"");
            shell.arg("-c").arg(script).arg(relay_executable());
            shell
        }
    };
    let mut child = command
        .arg("serve")
        .args(["--listen", &format!("127.0.0.1:{port}"), "--data"])
        .arg(data)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("{} does not start: {error}", relay_executable().display()));
    let (ready, wait) = std::sync::mpsc::channel();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    // Lives as long as the relay's stdout, so that the relay never blocks on a full pipe.
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            if let Some((_, address)) = line.split_once("listening on ") {
                let _ = ready.send(port_of(address));
            }
        }
    });
    match wait.recv_timeout(STARTING) {
        Ok(port) => (child, port),
        Err(error) => {
            let state = match error {
                RecvTimeoutError::Disconnected => match ended(&mut child, STOPPING) {
                    Some(status) => status.to_string(),
                    None => "its output ended, and it did not".to_owned(),
                },
                RecvTimeoutError::Timeout => {
                    let threads = threads_of(child.id());
                    format!("it runs for {STARTING:?}, and its threads wait in {threads:?}")
                }
            };
            let _ = child.kill();
            let _ = child.wait();
            let log = log_tail(directory);
            panic!("the relay did not become ready ({state}); its log ends with\n{log}");
        }
    }
}

/// How a child ended, if it does in time.
fn ended(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let since = Instant::now();
    while since.elapsed() < patience {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    None
}

/// What each thread of a process is called, and where in the kernel it waits.
fn threads_of(pid: u32) -> Vec<String> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    let threads = threads.into_iter().flatten().flatten();
    threads
        .map(|thread| {
            let read = |name| std::fs::read_to_string(thread.path().join(name)).unwrap_or_default();
            format!("{}: {}", read("comm").trim_end(), read("wchan"))
        })
        .collect()
}

/// The last of what the relay has written to stderr, over all its starts.
fn log_tail(directory: &Path) -> String {
    let log = std::fs::read(log_path(directory)).unwrap_or_default();
    let tail = &log[log.len().saturating_sub(16 * 1024)..];
    String::from_utf8_lossy(tail).into_owned()
}

fn port_of(address: &str) -> u16 {
    let address = address.split_whitespace().next().unwrap_or_default();
    let digits = |c: char| !c.is_ascii_digit();
    let port = address.trim_end_matches(digits).rsplit(digits).next();
    port.and_then(|port| port.parse().ok())
        .expect("an address with a port")
}

fn bytes_below(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else {
        return path.metadata().map_or(0, |metadata| metadata.len());
    };
    entries
        .flatten()
        .map(|entry| bytes_below(&entry.path()))
        .sum()
}

/// Whether a child does something, or waits for something else than its next job.
fn is_at_work(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    let waits_in = std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
    match state {
        None | Some('Z') => false,
        state => state != Some('S') || !waits_in.contains("pipe_read"),
    }
}

/// Whether a process is a worker of the relay's workshop.
fn is_workshop(pid: u32) -> bool {
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut arguments = arguments.split(|byte| *byte == 0);
    arguments.any(|argument| argument == b"workshop")
}

/// What a process has used since it began; `None` if there is none.
#[must_use]
pub fn usage_of(pid: u32) -> Option<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may contain anything; the fields after it are counted from 3.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let time = |field: usize| {
        let ticks: u64 = fields
            .get(field - 3)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        Duration::from_micros(ticks * 1_000_000 / ticks_per_second)
    };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next());
        number
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(0)
            * 1024
    };
    Some(Usage {
        cpu: time(14) + time(15),
        cpu_kernel: time(15),
        cpu_children: time(16) + time(17),
        resident_bytes: kib("VmRSS:"),
        peak_bytes: kib("VmHWM:"),
    })
}

/// Finds the most memory that any child of a process uses, by looking often.
#[derive(Debug)]
pub struct ChildWatch {
    stop: Arc<AtomicBool>,
    peak_bytes: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl ChildWatch {
    fn start(parent: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let peak_bytes = Arc::new(AtomicU64::new(0));
        let (stopped, peak) = (Arc::clone(&stop), Arc::clone(&peak_bytes));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for child in children_of(parent) {
                    // Until it is the program that it is to be, a child has its parent's memory.
                    if !is_workshop(child) {
                        continue;
                    }
                    let usage = usage_of(child).unwrap_or_default();
                    peak.fetch_max(usage.peak_bytes, Ordering::Relaxed);
                }
                std::thread::sleep(CHILD_SAMPLE);
            }
        });
        Self {
            stop,
            peak_bytes,
            thread: Some(thread),
        }
    }

    /// The most memory of one child that was seen, in bytes; 0 if there was none.
    #[must_use]
    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for ChildWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn children_of(parent: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{parent}/task")) else {
        return Vec::new();
    };
    let lists = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}
