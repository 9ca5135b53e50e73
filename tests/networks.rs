//! Aim: services that share a document agree after whatever a real network does.
//! Method: a relay and three services, each in a network namespace of its own with a link to the
//! relay's, on which a fifth of the packets is lost, both ways. Then one service is cut off whole,
//! and another hears nothing while it is heard, or is not heard while it hears. After each, all
//! see the same.
//!
//! Needs Linux with `ip`, `nft` and namespaces for everybody; says so and passes where one is
//! missing.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reconverge_tests::process::relay_executable;

const INSIDE: &str = "RECONVERGE_TESTS_INSIDE_NAMESPACE";
const SERVICES: [&str; 3] = ["orders", "stock", "payments"];

/// For everything that is waited for; the network alone may need tens of seconds.
const PATIENCE: Duration = Duration::from_secs(180);

#[test]
fn services_agree_after_each_partition_of_a_network_that_loses_packets() {
    if std::env::var_os(INSIDE).is_some() {
        return agree();
    }
    let namespace = ["--user", "--map-root-user", "--net", "--mount"];
    let works = |program: &str, arguments: &[&str]| {
        let output = Command::new("unshare")
            .args(namespace)
            .arg(program)
            .args(arguments)
            .output();
        output.is_ok_and(|output| output.status.success())
    };
    for (program, arguments) in [("ip", ["link"].as_slice()), ("nft", &["list", "ruleset"])] {
        if !works(program, arguments) {
            eprintln!("SKIPPED: no network namespace in which {program} works");
            return;
        }
    }
    let status = Command::new("unshare")
        .args(namespace)
        .arg(std::env::current_exe().unwrap())
        .args(["--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success());
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}

fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process in a namespace, killed when dropped, and what it prints.
struct Process {
    child: Child,
    input: ChildStdin,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    fn start(namespace: &str, program: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new("ip")
            .args(["netns", "exec", namespace])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let printed = BufReader::new(child.stdout.take().unwrap()).lines();
        let (into, name) = (lines.clone(), namespace.to_owned());
        std::thread::spawn(move || {
            for line in printed.map_while(Result::ok) {
                println!("{name}: {line}");
                into.lock().unwrap().push(line);
            }
        });
        Self {
            input: child.stdin.take().unwrap(),
            child,
            lines,
        }
    }

    /// The newest line that starts with `kind`, without it.
    fn newest(&self, kind: &str) -> Option<String> {
        let lines = self.lines.lock().unwrap();
        let line = lines.iter().rev().find_map(|line| line.strip_prefix(kind));
        line.map(str::to_owned)
    }

    fn put(&mut self, part: &str, value: u32) {
        writeln!(self.input, "{part} {value}").unwrap();
    }

    fn sees(&self, part: &str, value: u32) -> bool {
        let wanted = format!("{part}={value}");
        let seen = self.newest("sees ").unwrap_or_default();
        seen.split(' ').any(|part| part == wanted)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Replaces the rules at the relay: everywhere a fifth of the packets is lost, and all of those to
/// and from the services that are named.
fn rules(lost_to: &[&str], lost_from: &[&str]) {
    let drop = |key: &str, names: &[&str]| -> String {
        names
            .iter()
            .map(|name| format!("{key} \"{name}\" drop; "))
            .collect()
    };
    let lossy = "meta iifname != \"lo\" meta oifname != \"lo\" numgen random mod 5 == 0 drop;";
    let rules = format!(
        "table inet lab {{}}; delete table inet lab; table inet lab {{
            chain in {{ type filter hook input priority 0; {} {lossy} }}
            chain out {{ type filter hook output priority 0; {} {lossy} }}
        }}",
        drop("iifname", lost_from),
        drop("oifname", lost_to),
    );
    run("ip", &["netns", "exec", "relay", "nft", &rules]);
}

/// A namespace for the relay, and one with a link to it for each service.
fn connect() {
    run("mount", &["-t", "tmpfs", "none", "/run"]);
    std::fs::create_dir("/run/netns").unwrap();
    run("ip", &["netns", "add", "relay"]);
    run("ip", &["-n", "relay", "link", "set", "lo", "up"]);
    for (n, name) in (1..).zip(SERVICES) {
        run("ip", &["netns", "add", name]);
        let there = ["peer", "name", "relay", "netns", name];
        let link = ["-n", "relay", "link", "add", name, "type", "veth"];
        run("ip", &[link.as_slice(), &there].concat());
        for (namespace, device, host) in [("relay", name, 1), (name, "relay", 2)] {
            let address = format!("10.9.{n}.{host}/24");
            let add = ["-n", namespace, "addr", "add", &address, "dev", device];
            run("ip", &add);
            run("ip", &["-n", namespace, "link", "set", device, "up"]);
        }
    }
}

fn agree() {
    connect();
    rules(&[], &[]);
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let serve = ["serve", "--listen", "0.0.0.0:3030", "--data"];
    let serve = [
        serve.as_slice(),
        &[data.to_str().unwrap(), "--ping-interval-s", "3"],
    ]
    .concat();
    let relay = Process::start("relay", &relay_executable(), &serve);
    until("the relay", || relay.newest("listening on "));

    let program = Path::new(env!("CARGO_BIN_EXE_service"));
    let mut services = Vec::<Process>::new();
    let mut document = String::new();
    for (n, name) in (1..).zip(SERVICES) {
        let url = format!("ws://10.9.{n}.1:3030/?space=shop");
        let arguments = match document.as_str() {
            "" => vec![url.as_str()],
            document => vec![url.as_str(), document],
        };
        let mut service = Process::start(name, program, &arguments);
        document = until("the document", || service.newest("automerge:"));
        document.insert_str(0, "automerge:");
        service.put(name, 0);
        until("the first part is saved", || {
            let saved = service.newest("is ")? == "saved" && service.sees(name, 0);
            saved.then_some(())
        });
        services.push(service);
    }

    // Who is cut off: what is lost on the way to them, and from them.
    let partitions: [(&[&str], &[&str]); 3] = [
        (&["stock"], &["stock"]),
        (&["payments"], &[]),
        (&[], &["payments"]),
    ];
    for (round, (lost_to, lost_from)) in (1..).zip(partitions) {
        rules(lost_to, lost_from);
        for (service, name) in services.iter_mut().zip(SERVICES) {
            service.put(name, round);
        }
        let cut = |name: &str| lost_to.contains(&name) || lost_from.contains(&name);
        let (deaf, heard): (Vec<&str>, Vec<&str>) = SERVICES.iter().partition(|name| cut(name));
        // Those who are connected go on.
        for (service, name) in services.iter().zip(SERVICES) {
            for other in heard.iter().filter(|_| !cut(name)) {
                let what = format!("{name} to see round {round} of {other}");
                until(&what, || service.sees(other, round).then_some(()));
            }
        }
        for (service, name) in services.iter().zip(SERVICES).filter(|(_, name)| cut(name)) {
            let hears = !lost_to.contains(&name);
            for other in &heard {
                assert!(hears || !service.sees(other, round), "{name} is cut off");
            }
            until(&format!("{name} to know that it is not saved"), || {
                let status = service.newest("is ")?;
                (service.sees(name, round) && status != "saved").then_some(())
            });
        }
        println!("round {round}: {deaf:?} cut off, {heard:?} agree");

        rules(&[], &[]);
        for (service, name) in services.iter().zip(SERVICES) {
            for other in SERVICES {
                let what = format!("{name} to see round {round} of {other}");
                until(&what, || service.sees(other, round).then_some(()));
            }
            let what = format!("{name} to be saved");
            until(&what, || (service.newest("is ")? == "saved").then_some(()));
        }
        println!("round {round}: all agree");
    }
}
