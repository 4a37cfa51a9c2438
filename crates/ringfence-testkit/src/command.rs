//! Running `ip`, `nft` and friends, with errors that show the command, what was fed to it and what it said.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Runs a program in the calling thread's network namespace with `input` on its standard input, and gives what it
/// printed. Fails where it does not exit with 0.
pub fn run(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{program}` (is it installed?)"))?;
    let mut pipe = child.stdin.take().context("no pipe to the program")?;
    // On its own thread: a program that prints before it has read everything would otherwise wait for us, and we for it.
    let (output, written) = std::thread::scope(|scope| {
        let writer = scope.spawn(move || pipe.write_all(input.as_bytes()));
        (child.wait_with_output(), writer.join())
    });
    let output = output.with_context(|| format!("wait for `{program}`"))?;
    if !output.status.success() {
        let numbered: Vec<String> = (1..)
            .zip(input.lines())
            .map(|(number, line)| format!("  {number:>3}  {line}"))
            .collect();
        bail!(
            "`{program} {}`: {}\n{}{}\n{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            numbered.join("\n"),
        );
    }
    match written {
        Ok(result) => result.with_context(|| format!("write to `{program}`"))?,
        Err(panic) => std::panic::resume_unwind(panic),
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs lines of `ip` commands in one process.
pub(crate) fn ip(lines: &[String]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut text = lines.join("\n");
    text.push('\n');
    run("ip", &["-batch", "-"], &text).map(drop)
}

/// Loads nft text.
pub(crate) fn nft(script: &str) -> Result<()> {
    run("nft", &["-f", "-"], script).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_command_its_input_and_its_output() {
        let error = run("sh", &["-c", "cat; echo sorry >&2; exit 3"], "first\nsecond\n").expect_err("exit 3");
        let text = error.to_string();
        for part in ["sh -c", "exit status: 3", "sorry", "  2  second"] {
            assert!(text.contains(part), "{text} lacks {part:?}");
        }
    }

    #[test]
    fn large_input_and_output_do_not_block_each_other() {
        let input = "0123456789abcde\n".repeat(100_000);
        assert_eq!(run("cat", &[], &input).expect("cat"), input);
    }
}
