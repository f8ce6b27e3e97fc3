//! One shell command in a process group of its own, with limits, that leaves nobody behind.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use modelyard_kernel::background::on_a_thread;
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpgid};
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Limits, Run, RunError, RunJob, ScriptOutput,
    capture::pump,
    checkpoint::only_entry,
    directory::Directory,
    follow::{Checkpoints, Follower},
    output::Output,
    procfs::{WORKSPACE_VARIABLE, group_is_running, kill_marked},
    progress::Tail,
    usage::{Overstepped, left_too_much, overstepped},
    watcher::Stream,
};

/// How long a script has to clean up between `SIGTERM` and `SIGKILL`.
const GRACE: Duration = Duration::from_millis(1500);

/// How long we wait for the last output when someone outside the process group holds the pipe.
const DRAIN: Duration = Duration::from_millis(200);

/// Why the processor limit is no single number: at the first the process gets `SIGXCPU`, which
/// tells what happened, at the second `SIGKILL`, which it cannot ignore.
const CPU_SLACK_SECONDS: u64 = 5;

/// A command, as it goes to `/bin/sh -c`.
#[derive(Clone, Copy, Debug)]
pub struct Script<'a> {
    /// For messages: `train`, `predict`, `validate`.
    pub stage: &'static str,
    pub command: &'a str,
    /// Where it runs: mostly, but not necessarily, in the workspace.
    pub directory: &'a Path,
    /// Set over what is inherited from the server.
    pub environment: &'a BTreeMap<String, String>,
    pub limits: &'a Limits,
}

/// Runs a script to its end or to one of its limits. Any exit code is `Ok`. The workspace keeps the
/// record by which a crash is cleaned up, so it can hold one script at a time.
///
/// When the leader has ended, all of its process group has. When the run is canceled the group
/// gets `SIGTERM` and after a grace `SIGKILL`, all in less than two seconds; when the future is
/// dropped it gets `SIGKILL` at once.
///
/// What the script says goes to the watcher of the run. When it did not end well, its last
/// checkpoint is stored before this ends; a canceled run waits for that a few seconds at most.
pub async fn run_script(script: Script<'_>, run: &Run) -> Result<ScriptOutput, RunError> {
    let Run { workspace, cancel, watcher, job } = run;
    let Script { stage, limits, .. } = script;
    if cancel.is_cancelled() {
        return Err(RunError::Canceled);
    }
    let directory = workspace.directory()?;
    let started = || {
        let tail = Tail::create(&directory.progress_file())?;
        Ok((Group::start(script, directory, job.as_ref())?, tail))
    };
    let (mut group, tail) =
        started().map_err(RunError::io(format!("cannot start the {stage} script")))?;
    let (stdout, stderr) = (group.child.stdout.take(), group.child.stderr.take());
    let mut out = Output::new(limits.output_bytes, Stream::Stdout, watcher.as_deref());
    let mut err = Output::new(limits.output_bytes, Stream::Stderr, watcher.as_deref());
    let mut follower = watcher.clone().map(|watcher| {
        let (directory, scratch) = (directory.checkpoints(), directory.path().to_owned());
        let limits = limits.archive;
        Follower::new(Checkpoints { directory, scratch, limits, watcher }, tail)
    });

    let ended = CancellationToken::new();
    let supervised = async {
        let ending = group.supervise(limits, directory.path(), cancel).await;
        ended.cancel();
        ending
    };
    let pumped = async {
        let pumps = async {
            tokio::join!(
                async {
                    if let Some(stdout) = stdout {
                        pump(stdout, |bytes| out.push(bytes)).await;
                    }
                },
                async {
                    if let Some(stderr) = stderr {
                        pump(stderr, |bytes| err.push(bytes)).await;
                    }
                },
            )
        };
        let patience = async {
            ended.cancelled().await;
            sleep(DRAIN).await;
        };
        tokio::select! { _ = pumps => {}, () = patience => {} }
    };
    let followed = async {
        if let Some(follower) = &mut follower {
            follower.follow(&ended).await;
        }
    };
    let (ending, (), ()) = tokio::join!(supervised, pumped, followed);
    group.reap().await;
    let (stdout, stderr) = (out.finish(), err.finish());
    if let Some(follower) = follower {
        let well = matches!(ending, Ok(Ending::Exited(status)) if status.success());
        follower.finish(well, cancel).await;
    }

    let ending = ending.map_err(RunError::io(format!("lost sight of the {stage} script")))?;
    let (Ending::Exited(status)
    | Ending::TimedOut(status, _)
    | Ending::Canceled(status)
    | Ending::OverLimit(status, _)) = ending;
    let output = ScriptOutput { exit_code: exit_code(status), stdout, stderr };
    match ending {
        Ending::Canceled(_) => Err(RunError::Canceled),
        Ending::TimedOut(_, limit) => Err(RunError::TimedOut { stage, limit, output }),
        Ending::OverLimit(_, limit) => {
            Err(RunError::OverLimit { stage, limit: limit.to_string(), output: Some(output) })
        }
        Ending::Exited(_) => match limit_hit(output.exit_code, limits) {
            Some(limit) => Err(RunError::OverLimit { stage, limit, output: Some(output) }),
            None => Ok(output),
        },
    }
}

/// The leader of a process group. Dropping it kills the group.
struct Group {
    child: Child,
    id: Pid,
    over: bool,
}

enum Ending {
    Exited(ExitStatus),
    TimedOut(ExitStatus, Duration),
    Canceled(ExitStatus),
    OverLimit(ExitStatus, Overstepped),
}

impl Group {
    fn start(script: Script<'_>, workspace: &Directory, job: Option<&RunJob>) -> io::Result<Self> {
        let checkpoints = workspace.checkpoints();
        fs_err::create_dir_all(&checkpoints)?;
        // What is there now is what was restored.
        let checkpoint = only_entry(&checkpoints)?;
        let child = Command::new("/bin/sh")
            .arg("-c")
            .arg(prelude(script.limits))
            .arg("/bin/sh")
            .arg(script.command)
            .arg(workspace.process_file())
            .arg(workspace.progress_file())
            .current_dir(script.directory)
            .env_clear()
            .envs(inherited(std::env::vars_os()))
            .envs(script.environment)
            .env(WORKSPACE_VARIABLE, workspace.path())
            .env("MODELYARD_PROGRESS", workspace.progress_file())
            .env("MODELYARD_PROGRESS_FD", "3")
            .env("MODELYARD_CHECKPOINT_DIR", checkpoints)
            .envs(checkpoint.map(|it| ("MODELYARD_CHECKPOINT", it)))
            .envs(job.map(|it| ("MODELYARD_JOB_ID", it.id.to_string())))
            .envs(job.map(|it| ("MODELYARD_IDEMPOTENCY_KEY", &it.idempotency_key)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let id = id.ok_or_else(|| io::Error::other("the process has no id"))?;
        Ok(Self { child, id, over: false })
    }

    async fn supervise(
        &mut self,
        limits: &Limits,
        workspace: &Path,
        cancel: &CancellationToken,
    ) -> io::Result<Ending> {
        let time = limits.wall_time.unwrap_or(Duration::MAX);
        let ending = tokio::select! {
            biased;
            status = self.child.wait() => Ending::Exited(status?),
            () = cancel.cancelled() => Ending::Canceled(self.stop().await?),
            () = sleep(time) => Ending::TimedOut(self.stop().await?, time),
            limit = overstepped(self.id, workspace, limits) => {
                Ending::OverLimit(self.end(limit, workspace).await?, limit)
            }
        };
        match ending {
            Ending::Exited(status) => {
                self.kill();
                if let Some(limit) = left_too_much(workspace, limits).await {
                    return Ok(Ending::OverLimit(status, limit));
                }
            }
            Ending::TimedOut(..) | Ending::Canceled(_) | Ending::OverLimit(..) => self.over = true,
        }
        Ok(ending)
    }

    /// Ends a script that uses too much, with those that left its group, since they count too.
    async fn end(&mut self, limit: Overstepped, workspace: &Path) -> io::Result<ExitStatus> {
        let status = match limit {
            Overstepped::Processor { .. } => self.stop().await?,
            // It takes from everybody, and while it cleans up it may take all that is left.
            Overstepped::Memory { .. } | Overstepped::Workspace { .. } => {
                let _ = kill_process_group(self.id, Signal::KILL);
                self.child.wait().await?
            }
        };
        let workspace = workspace.to_owned();
        on_a_thread(move || kill_marked(&workspace)).await.map_err(io::Error::other)?;
        Ok(status)
    }

    /// Asks the group to end, then makes it.
    async fn stop(&mut self) -> io::Result<ExitStatus> {
        let _ = kill_process_group(self.id, Signal::TERM);
        let gone = async {
            let _ = self.child.wait().await;
            // The shell ends at once, while the program it started may still be saving its work.
            while group_is_running(self.id) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(GRACE, gone).await.is_err() {
            let _ = kill_process_group(self.id, Signal::KILL);
        }
        self.child.wait().await
    }

    /// Takes note of the dead in the group. Orphans become children of the first process in a
    /// container; when that is us, nobody else does it. The leader is not among them any more.
    async fn reap(&self) {
        for _ in 0..100 {
            match waitpgid(self.id, WaitOptions::NOHANG) {
                Ok(Some(_)) => {}
                Ok(None) => sleep(Duration::from_millis(5)).await,
                Err(_) => return,
            }
        }
    }

    /// Called right after the leader ended: process ids are handed out in turn, so its own cannot
    /// have gone to someone else yet.
    fn kill(&mut self) {
        if !self.over {
            let _ = kill_process_group(self.id, Signal::KILL);
            self.over = true;
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What runs before the command: note who we are, for the next start of the server should this one
/// crash; open the progress file as descriptor 3; take the limits on; become the command. The command itself is an argument, so nothing
/// needs quoting and its text stays as it is. Only what the shell has built in is used.
fn prelude(limits: &Limits) -> String {
    let mut text = String::from(
        "{ read -r boot </proc/sys/kernel/random/boot_id && read -r stat </proc/$$/stat && \
         printf '%s %s\\n' \"$boot\" \"$stat\" >\"$2\"; } 2>/dev/null\n\
         exec 3>>\"$3\"\n",
    );
    let mut limit = |setting: String| text.push_str(&format!("ulimit {setting} || exit 125\n"));
    if let Some(seconds) = limits.cpu_seconds() {
        limit(format!("-S -t {seconds}"));
        limit(format!("-H -t {}", seconds + CPU_SLACK_SECONDS));
    }
    if let Some(bytes) = limits.memory_bytes {
        limit(format!("-v {}", bytes.div_ceil(1024)));
    }
    if let Some(bytes) = limits.file_bytes {
        limit(format!("-f {}", bytes.div_ceil(512)));
    }
    text.push_str("exec /bin/sh -c \"$1\"\n");
    text
}

/// A signal counts as negative, the way Python tells it and clients know it.
fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| -status.signal().unwrap_or_default())
}

/// Which limit ended the script, if it can be told. A shell in between reports the signal of its
/// child as 128 more. Memory cannot be told: allocations fail, and programs then do what they do.
fn limit_hit(exit_code: i32, limits: &Limits) -> Option<String> {
    let ended_by =
        |signal: Signal| exit_code == -signal.as_raw() || exit_code == 128 + signal.as_raw();
    match (limits.cpu_seconds(), limits.file_bytes) {
        (Some(seconds), _) if ended_by(Signal::XCPU) => {
            Some(Overstepped::Processor { seconds }.to_string())
        }
        (_, Some(bytes)) if ended_by(Signal::XFSZ) => Some(format!("{bytes} bytes per file")),
        _ => None,
    }
}

/// Whether scripts do not get to see this variable of the server: its own settings and the
/// credentials it uses. A project that needs one sets it in its own environment.
pub fn is_withheld(name: &str) -> bool {
    const PREFIXES: [&str; 6] = ["MODELYARD_", "SERVICEKIT_", "AWS_", "AZURE_", "GOOGLE_", "PG"];
    const NAMES: [&str; 1] = ["DATABASE_URL"];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn inherited(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> impl Iterator<Item = (OsString, OsString)> {
    variables.filter(|(name, _)| !is_withheld(&name.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::inherited;

    #[test]
    fn scripts_do_not_inherit_the_secrets_of_the_server() {
        let all = ["PATH", "HOME", "DATABASE_URL", "MODELYARD_KEY", "AWS_SECRET_ACCESS_KEY"];
        let given = all.map(|name| (name.into(), "x".into()));
        let names: Vec<_> = inherited(given.into_iter()).map(|(name, _)| name).collect();
        assert_eq!(names, ["PATH", "HOME"]);
    }
}
