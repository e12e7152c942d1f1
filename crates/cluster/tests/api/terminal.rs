//! What a person sees at a terminal: readable lines of the log, progress, clear words. The real scripts run, in a terminal of `script`.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use cluster::{PortLease, http_client, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
const AWKS: [&[&str]; 4] = [&["mawk"], &["gawk"], &["busybox", "awk"], &["original-awk"]];
/// A second has passed.
const TICK: &str = "\u{1}\n";

/// As a cluster wrote them: a header of `tail`, prefixes of both versions of Compose, servers, a panic.
const LOG: &str = r#"==> .cluster/logs/create_buy_order.log <==
{"event":"orders_not_limited","variable":"ORDER_MIN_BTC","info":"orders may be as small as 1 satoshi","level":"WARN","service":"create_buy_order","logged_at":"2026-11-28T20:56:40.851054Z"}
{"event":"health_checked","count":1,"level":"INFO","service":"create_buy_order","logged_at":"2026-11-28T20:56:42.077815Z","request_id":"6c8ef7cf-0785-4344-b367-00d24539e287","trace_id":"b33130c33d2f5edcdaa16d25b1a571f0"}
{"event":"buy_order_created","id":1,"external_id":"b1e08e84-3283-4422-85d1-c91adc30618c","level":"INFO","service":"create_buy_order","logged_at":"2026-11-28T20:56:42.301948Z","request_id":"6f3f12a3-fba9-4210-bac6-77f5d6fc32b3","trace_id":"f4ce26d117099e78b4be726883cac762"}

==> .cluster/logs/read_model.log <==
2026-11-28 20:56:22.298 UTC [665] FATAL:  the database system is starting up
btc_price_1         | {"event":"btc_price_quoted","source":"simulator","timestamp":"2026-11-28T20:56:42.252055Z","currency":"USD","rate":"48478.88","level":"INFO","service":"btc_price","logged_at":"2026-11-28T20:56:42.252068Z","request_id":"6f3f12a3-fba9-4210-bac6-77f5d6fc32b3","trace_id":"f4ce26d117099e78b4be726883cac762"}
create_buy_order-2  | {"event":"request_failed","request":"PUT /buy_order","error":"it said \"ünïcödé\"\nand 日本日本日本日本","reference":"7bb31b88-2d7e-467a-b637-cbc2772d0823","level":"ERROR","service":"create_buy_order","logged_at":"2026-11-28T20:57:03.980549Z"}
queue-1             | 2026-11-28 20:56:28.301838+00:00 [info] <0.223.0> Feature flags: list of feature flags found:
read_model_sync-1   | thread 'main' panicked at crates/read_model_sync/src/main.rs:1:1:
log-1               | 2026-11-28 20:56:42 +0000 pydist.btc_price.btc_price_quoted: {"currency":"USD"}
"#;
const READABLE: &str = r#"20:56:40 create_buy_order orders_not_limited ORDER_MIN_BTC orders may be as sma…
20:56:42 create_buy_order buy_order_created id=1 external_id=b1e08e84
20:56:22 read_model       FATAL:  the database system is starting up
20:56:42 btc_price        btc_price_quoted USD 48478.88
20:57:03 create_buy_order-2 request_failed PUT /buy_order it said "ünïcödé" and…
20:56:28 queue            [info] <0.223.0> Feature flags: list of feature flags…
20:56:28 read_model_sync  thread 'main' panicked at crates/read_model_sync/src/…
"#;

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs a program with this input, and returns what it printed.
fn fed(command: &mut Command, input: &str) -> anyhow::Result<String> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("no input")?;
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    writer.join().ok().context("the writer panicked")??;
    anyhow::ensure!(output.status.success(), "{}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// The lines that each installed awk makes of a log. They are the same.
fn readable(log: &str, width: usize) -> anyhow::Result<String> {
    let mut outputs = BTreeSet::new();
    for awk in AWKS {
        let installed = Command::new("which").arg(awk[0]).output()?.status.success();
        if installed {
            let mut command = Command::new(awk[0]);
            command
                .args(&awk[1..])
                .args(["-v", &format!("width={width}"), "-f"]);
            command
                .arg(repository().join("scripts/readable.awk"))
                .env("LC_ALL", "C");
            outputs.insert(fed(&mut command, log)?);
        }
    }
    anyhow::ensure!(
        outputs.len() == 1,
        "{} different outputs: {outputs:?}",
        outputs.len()
    );
    outputs.pop_first().context("no awk")
}

/// Runs a line of bash in the repository, in a terminal of 60 columns.
fn in_terminal(line: &str, variables: &[(&str, &str)]) -> anyhow::Result<Output> {
    let mut command = Command::new("script");
    command
        .args(["-qec", &format!("stty cols 60; {line}"), "/dev/null"])
        .current_dir(repository())
        .env("SHELL", "/bin/bash")
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .env_remove("COLUMNS")
        .envs(variables.iter().copied())
        .stdin(Stdio::null());
    Ok(command.output()?)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\r', "")
}

#[test]
fn every_awk_makes_the_same_readable_lines() -> anyhow::Result<()> {
    assert_eq!(readable(LOG, 80)?, READABLE);
    for width in [30, 57, 80, 200] {
        for line in readable(LOG, width)?.lines() {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
    }
    Ok(())
}

#[test]
fn a_flood_is_counted() -> anyhow::Result<()> {
    let mut log = TICK.to_owned();
    for second in 0..10 {
        for number in 0..300 {
            let end =
                format!(r#""level":"INFO","service":"x","logged_at":"2026-11-28T20:56:0{second}.1Z"}}"#);
            log += &format!("x_1 | {{\"event\":\"buy_order_created\",\"id\":{number},{end}\n");
            log += &format!(
                "y_1 | {{\"event\":\"request_failed\",\"error\":\"{number}\",\"level\":\"ERROR\",{end}\n"
            );
        }
        // It may come within a line.
        log += &format!(
            "x_1 | {{\"event\":\"service_st{TICK}arted\",\"level\":\"INFO\",\"logged_at\":\"2026-11-28T20:56:0{second}.2Z\"}}\n"
        );
    }
    let shown = readable(&log, 80)?;
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines.len() < 60, "{shown}");
    let count = |before: &str, after: &str| -> usize {
        let counts = lines.iter().filter_map(|line| {
            line.split_once(before)?
                .1
                .split_once(after)?
                .0
                .parse::<usize>()
                .ok()
        });
        counts.sum()
    };
    assert_eq!(count("in 5 s: ", " created"), 3000, "{shown}");
    let failures = lines
        .iter()
        .filter(|line| line.contains("request_failed ") && !line.contains('×'))
        .count();
    assert_eq!(failures + count("request_failed ×", " more"), 3000, "{shown}");
    assert_eq!(
        shown.matches("service_st").count(),
        shown.matches("service_started").count()
    );
    assert!(shown.contains("service_started"), "{shown}");
    Ok(())
}

#[test]
fn colour_is_for_terminals() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    fs::write(&log, LOG)?;
    let line = format!(". scripts/readable.sh; readable command=0 <{}", log.display());
    let coloured = text(&in_terminal(&line, &[])?.stdout);
    assert!(
        coloured
            .contains("\u{1b}[33m20:56:40 create_buy_order orders_not_limited ORDER_MIN_BTC …\u{1b}[0m\n"),
        "{coloured}"
    );
    assert!(coloured.contains("\u{1b}[31m20:57:03"), "{coloured}");
    for plain in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let shown = text(&in_terminal(&line, &[plain])?.stdout);
        assert!(!shown.contains('\u{1b}'), "{shown}");
        assert!(shown.contains("ORDER_MIN_BTC …\n"), "{shown}");
    }
    Ok(())
}

#[test]
fn a_long_command_is_a_line_of_progress() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log").display().to_string();
    let task = r#"bash -c 'seq -f "line %g" 100; printf "Building [=> ] 7/9: x\r"; sleep 3; exit '"$code""#;
    let line = format!(". scripts/progress.sh; with_progress working {log} {task}");
    let succeeded = text(&in_terminal(&line, &[("code", "0")])?.stdout);
    assert!(
        succeeded.contains("\u{1b}[Kworking: 7 of 9 crates, "),
        "{succeeded}"
    );
    assert!(succeeded.contains("\u{1b}[Kworking: done after "), "{succeeded}");
    assert!(!succeeded.contains("line 1"), "{succeeded}");

    let failed = in_terminal(&line, &[("code", "3")])?;
    assert_eq!(failed.status.code(), Some(3));
    let failed = text(&failed.stdout);
    assert!(
        failed.contains("line 99\nline 100\n") && !failed.contains("line 1\n"),
        "{failed}"
    );
    assert!(failed.contains(&format!("all of it in {log}")), "{failed}");

    let verbose = text(&in_terminal(&line, &[("code", "0"), ("VERBOSE", "1")])?.stdout);
    assert!(
        verbose.contains("line 1\nline 2\n") && !verbose.contains("working"),
        "{verbose}"
    );
    Ok(())
}

#[test]
fn unknown_words_are_named() -> anyhow::Result<()> {
    for (line, said) in [
        (
            "./test.sh unti",
            "test.sh: unknown suite 'unti': unit, integration, faults, docker or all\n",
        ),
        (
            "./test.sh unit fast",
            "test.sh: unknown argument 'fast': only the suite 'faults' takes any\n",
        ),
        (
            "./run.sh --nativ",
            "run.sh: unknown argument '--nativ': see ./run.sh --help\n",
        ),
        (
            "./stop.sh now",
            "stop.sh: unknown argument 'now': it takes none\n",
        ),
        (
            "scripts/psql.sh model 'SELECT 1'",
            "psql: unknown database 'model': write_model or read_model\n",
        ),
        (
            "scripts/ensure_servers.sh tests",
            "ensure_servers: unknown argument 'tests': --for-tests, --for-bench or none\n",
        ),
        (
            "scripts/ensure_docker.sh stopp",
            "ensure_docker: unknown argument 'stopp': start, stop or none\n",
        ),
        (
            "scripts/fuzz.sh --second",
            "fuzz: unknown argument '--second': --seconds or --help\n",
        ),
        (
            "./build_base_images.sh --chek",
            "base image: unknown argument '--chek': --check or none\n",
        ),
    ] {
        let output = Command::new("bash")
            .args(["-c", line])
            .current_dir(repository())
            .output()?;
        assert!(!output.status.success(), "{line}");
        assert_eq!(text(&output.stderr), said);
    }
    Ok(())
}

/// A cluster in a terminal of 80 columns, started as `run.sh` does, in a folder of its own.
struct Terminal {
    folder: tempfile::TempDir,
    leases: Vec<PortLease>,
    script: Child,
}

impl Terminal {
    fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        for name in ["scripts", ".env"] {
            symlink(repository().join(name).canonicalize()?, folder.path().join(name))?;
        }
        fs::write(
            folder.path().join("run"),
            "set -euo pipefail\nstty cols 80\n. scripts/readable.sh\nfollow_native_logs $$ &\nexec \"$CLUSTER\" run --prices simulator\n",
        )?;
        let leases = (0..5)
            .map(|_| PortLease::take())
            .collect::<anyhow::Result<Vec<_>>>()?;
        let mut command = Command::new("script");
        command
            .args(["-qefc", "exec bash run", "typescript"])
            .current_dir(folder.path())
            .env("CLUSTER", env!("CARGO_BIN_EXE_cluster"))
            .env("TERM", "xterm")
            .env_remove("COLUMNS")
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        let names = [
            "CREATE_BUY_ORDER_EXT_PORT",
            "FETCH_BUY_ORDERS_EXT_PORT",
            "CONSOLE_EXT_PORT",
            "WRITE_MODEL_DB_EXT_PORT",
            "READ_MODEL_DB_EXT_PORT",
            "Q_EXT_ADMIN_PORT",
        ];
        for (name, lease) in names.iter().zip(&leases) {
            command.env(name, lease.port().to_string());
        }
        Ok(Self {
            script: command.spawn()?,
            folder,
            leases,
        })
    }

    /// What the terminal shows.
    fn screen(&self) -> String {
        text(&fs::read(self.folder.path().join("typescript")).unwrap_or_default())
    }

    async fn shows(&self, expected: &str) -> anyhow::Result<()> {
        wait_until(expected, LIMIT, async || {
            let screen = self.screen();
            anyhow::ensure!(screen.contains(expected), "the terminal shows: {screen}");
            Ok(true)
        })
        .await
    }

    async fn place_order(&self) -> anyhow::Result<()> {
        let url = format!("http://127.0.0.1:{}/buy_order", self.leases[0].port());
        let request = http_client()?.put(url).json(&cluster::new_order("GBP", "1.00"));
        request.send().await?.error_for_status()?;
        Ok(())
    }

    /// Ends read_model_sync as in a crash.
    fn kill_a_service(&self) -> anyhow::Result<()> {
        let holder = fs::read_to_string(self.folder.path().join(".cluster/lock"))?;
        let killed = Command::new("pkill")
            .args(["-KILL", "--parent", &holder, "--exact", "read_model_sync"])
            .status()?;
        anyhow::ensure!(killed.success(), "read_model_sync does not run");
        Ok(())
    }

    /// Runs a line of bash in the folder, in a terminal.
    fn in_terminal(&self, line: &str) -> anyhow::Result<Output> {
        let mut command = Command::new("script");
        command.args(["-qec", &format!("stty cols 80; {line}"), "/dev/null"]);
        Ok(command
            .current_dir(self.folder.path())
            .env("TERM", "xterm")
            .stdin(Stdio::null())
            .output()?)
    }

    fn in_pipes(&self, line: &str) -> anyhow::Result<Output> {
        let mut command = Command::new("bash");
        Ok(command
            .args(["-c", line])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()?)
    }

    fn press_ctrl_c(&mut self) -> anyhow::Result<()> {
        let keyboard = self.script.stdin.as_mut().context("no keyboard")?;
        keyboard.write_all(b"\x03")?;
        Ok(keyboard.flush()?)
    }

    /// The processes that work in its folder.
    fn processes(&self) -> anyhow::Result<Vec<PathBuf>> {
        let folder = self.folder.path().canonicalize()?;
        let here = |process: &Path| fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == folder);
        let all = fs::read_dir("/proc")?.filter_map(|entry| Some(entry.ok()?.path()));
        Ok(all.filter(|process| here(process)).collect())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // When the terminal is closed, the cluster stops.
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

/// With JSON lines only in a pipe, and the same exit codes.
fn an_admin_command_is_readable_at_a_terminal(terminal: &Terminal) -> anyhow::Result<()> {
    let void = "scripts/void.sh --id 00000000-0000-0000-0000-000000000000 --reason x";
    let refused = terminal.in_terminal(void)?;
    assert_eq!(refused.status.code(), Some(1));
    let refused = text(&refused.stdout);
    assert!(
        refused.starts_with("create_buy_order: no order has the id"),
        "{refused}"
    );
    assert!(
        refused.contains(" create_buy_order service_run_logic_exception_occurred no order"),
        "{refused}"
    );
    assert!(!refused.contains("{\"event\""), "{refused}");
    let refused = terminal.in_pipes(void)?;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("{\"event\":\"service_run_logic_exception_occurred\""));
    // Results on standard output stay results, and reach a pipe.
    let verified = terminal.in_terminal("scripts/verify.sh | cat")?;
    assert!(
        text(&verified.stdout).starts_with("equal: "),
        "{}",
        text(&verified.stdout)
    );
    Ok(())
}

#[tokio::test]
async fn a_native_run_at_a_terminal() -> anyhow::Result<()> {
    let mut terminal = Terminal::start()?;
    terminal.shows("Ctrl-C stops everything.\n").await?;
    terminal.shows("The log follows, one line an event").await?;
    wait_until("an order is shown", LIMIT, async || {
        terminal.place_order().await?;
        Ok(terminal
            .screen()
            .contains(" create_buy_order buy_order_created id="))
    })
    .await?;

    an_admin_command_is_readable_at_a_terminal(&terminal)?;
    terminal.kill_a_service()?;
    terminal
        .shows("read_model_sync ended (signal: 9 (SIGKILL))")
        .await?;
    terminal.shows("    All of them: ").await?;

    terminal.press_ctrl_c()?;
    terminal
        .shows("stopping the services, then the servers; another Ctrl-C changes nothing\n")
        .await?;
    terminal.press_ctrl_c()?;
    terminal
        .shows("everything is stopped; the data is kept\n")
        .await?;
    wait_until("the terminal is closed", LIMIT, async || {
        Ok(terminal.script.try_wait()?.is_some())
    })
    .await?;
    let screen = terminal.screen();
    assert!(
        screen.contains(" create_buy_order service_shut_down exit_code=0"),
        "{screen}"
    );
    let log = screen.split_once("times in UTC:\n").context("no log")?.1;
    for line in log.lines().filter(|line| !line.starts_with("Script done")) {
        let visible = line.replace("\u{1b}[0m", "");
        let visible = visible
            .split_once('m')
            .filter(|(code, _)| code.starts_with('\u{1b}'))
            .map_or(visible.as_str(), |(_, rest)| rest);
        assert!(visible.chars().count() <= 80, "{visible}");
        assert!(!visible.contains("{\"event\""), "{visible}");
    }
    wait_until("nothing is left", LIMIT, async || {
        let left = terminal.processes()?;
        anyhow::ensure!(left.is_empty(), "{left:?}");
        Ok(true)
    })
    .await
}
