//! Where a lock's nodes are, as the .NET `DistributedLock` library names them (its
//! `ZooKeeperPath`, version 2.8).

use sha2::{Digest, Sha512};

use super::queue::{SEQUENCE, places, word};
use crate::LockError;
use crate::provider::LockMode;
use crate::providers::kit::error::invalid;

/// The node below which all who want one lock queue, and the mode in which one of them does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LockPath {
    node: String,
    mode: LockMode,
}

impl LockPath {
    /// Returns the node of this key in a directory that [`checked_directory`] let pass.
    pub(super) fn new(directory: &str, key: &str, mode: LockMode) -> Self {
        let is_root = directory == "/";
        let mut node = String::with_capacity(directory.len() + key.len() + 1);
        if !is_root {
            node.push_str(directory);
        }
        node.push('/');
        push_safe_name(&mut node, key, is_root);
        Self { node, mode }
    }

    pub(super) fn node(&self) -> &str {
        &self.node
    }

    pub(super) fn mode(&self) -> LockMode {
        self.mode
    }

    /// Returns the path to which the server appends a sequence number.
    pub(super) fn child_prefix(&self) -> String {
        format!("{}/{}", self.node, word(self.mode))
    }

    /// Returns how long the paths are of the children with which one queues, taken together.
    pub(super) fn length(&self) -> usize {
        self.child_length().saturating_mul(places(self.mode))
    }

    /// Returns how long the path of a child is that queues.
    pub(super) fn child_length(&self) -> usize {
        self.node.len() + "/".len() + word(self.mode).len() + SEQUENCE
    }

    pub(super) fn child(&self, name: &str) -> String {
        format!("{}/{name}", self.node)
    }
}

/// Says what is wrong with a directory, if ZooKeeper does not take it. That does not repeat the
/// directory, which may be a part of a mistyped URL's password.
pub(super) fn checked_directory(directory: &str) -> Result<(), LockError> {
    let wrong = |why: &str| Err(invalid(format!("the directory {why}")));
    let Some(rest) = directory.strip_prefix('/') else {
        return wrong("does not begin with `/`");
    };
    if rest.is_empty() {
        return Ok(());
    }
    for part in rest.split('/') {
        match part {
            "" => return wrong("ends with `/` or has an empty part"),
            "." | ".." => return wrong("is relative"),
            _ if part.chars().any(is_forbidden) => {
                return wrong("has a character that ZooKeeper does not take");
            }
            _ => {}
        }
    }
    Ok(())
}

fn push_safe_name(path: &mut String, key: &str, in_root: bool) {
    let start = path.len();
    match key {
        "" => path.push_str("EMPTY"),
        "." | ".." => {
            path.push_str(key);
            path.push('_');
        }
        "zookeeper" if in_root => path.push_str("zookeeper_"),
        _ => {
            for character in key.chars() {
                // .NET looks at UTF-16 units, and half a surrogate pair is not allowed.
                for _ in 0..character.len_utf16() {
                    path.push(if is_forbidden(character) || character == '/' {
                        '_'
                    } else {
                        character
                    });
                }
            }
        }
    }
    if &path[start..] != key {
        push_base64(path, &Sha512::digest(key.as_bytes()));
    }
}

fn is_forbidden(character: char) -> bool {
    matches!(u32::from(character), 0..=0x1f | 0x7f..=0x9f | 0xd800..=0xf8ff | 0xfff0..)
}

/// Appends Base64 with padding, and `_` in place of `/`.
fn push_base64(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+_";
    for group in bytes.chunks(3) {
        let mut three = [0; 4];
        three[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(three);
        for place in 0..4 {
            text.push(if place <= group.len() {
                char::from(DIGITS[(bits >> (18 - 6 * place)) as usize & 63])
            } else {
                '='
            });
        }
    }
}

#[cfg(test)]
mod tests;
