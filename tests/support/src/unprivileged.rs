//! Runs a server as another user where the tests run as root.

use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Makes a command run as the user that the server's package makes, where the tests run as root:
/// servers of this kind refuse that.
pub(crate) fn unprivileged(mut command: Command) -> Command {
    if let Some((user, group)) = other_user() {
        command.uid(user).gid(group);
    }
    command
}

/// Gives a file or directory to the user whose processes are [`unprivileged`].
pub(crate) fn give(path: &Path, mode: u32) -> io::Result<()> {
    if let Some((user, group)) = other_user() {
        chown(path, Some(user), Some(group))?;
    }
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
}

fn other_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let find = |name: &str| {
        let line = users
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    find("postgres").or_else(|| find("nobody"))
}
