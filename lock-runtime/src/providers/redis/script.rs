//! The scripts: constant text, run by its hash.
//!
//! The scripts that every lock needs begin with the path that nearly all calls take, and return
//! there. The functions that the rest needs are made only after it, because making them costs as
//! much as taking a lock.

use once_cell::sync::Lazy;
use redis::Cmd;

macro_rules! scripts {
    ($($(#[$docs:meta])* $name:ident = [$($file:literal),+];)+) => {
        $(
            $(#[$docs])*
            pub(super) static $name: Lazy<Script> =
                Lazy::new(|| Script::new(concat!($(include_str!(concat!("scripts/", $file))),+)));
        )+
    };
}

scripts! {
    ACQUIRE = [
        "acquire.lua", "counter.lua", "tokens.lua", "queue.lua", "line.lua", "take.lua",
        "acquire_slowly.lua"
    ];
    PASS_ON = ["counter.lua", "tokens.lua", "queue.lua", "line.lua", "take.lua", "pass_on.lua"];
    RELEASE = ["release.lua", "counter.lua", "tokens.lua", "queue.lua", "release_slowly.lua"];
    RELEASE_LATER = ["release_later.lua"];
    CLEANUP = ["cleanup.lua", "counter.lua", "tokens.lua", "queue.lua", "cleanup_slowly.lua"];
    GROUP = [
        "group.lua", "counter.lua", "tokens.lua", "queue.lua", "line.lua", "take.lua",
        "caught.lua", "group_slowly.lua"
    ];
    /// A writer's too: its key is like a mutex.
    RENEW = ["renew.lua"];
    SEVERAL = [
        "several.lua", "counter.lua", "tokens.lua", "queue.lua", "line.lua", "take.lua",
        "caught.lua", "several_slowly.lua"
    ];
    INSPECT = ["inspect.lua"];
    RAISE_TOKENS = ["counter.lua", "raise_tokens.lua"];

    /// Where a majority of servers decides, each of them votes.
    QUORUM_VOTE = ["counter.lua", "quorum_vote.lua"];
    QUORUM_TELL = ["counter.lua", "quorum_tell.lua"];
    QUORUM_RENEW = ["counter.lua", "quorum_renew.lua"];

    READ_WRITE_ACQUIRE = [
        "read_write_acquire.lua", "counter.lua", "tokens.lua", "read_write.lua", "serve.lua",
        "line.lua", "enter.lua", "enter_slowly.lua"
    ];
    READ_WRITE_PASS_ON = [
        "counter.lua", "tokens.lua", "read_write.lua", "serve.lua", "line.lua", "enter.lua",
        "enter_anew.lua"
    ];
    READ_WRITE_RELEASE = [
        "read_write_release.lua", "counter.lua", "tokens.lua", "read_write.lua", "serve.lua",
        "leave.lua"
    ];
    WRITE_RELEASE_LATER = [
        "counter.lua", "tokens.lua", "read_write.lua", "serve.lua", "write_release_later.lua"
    ];
    READ_WRITE_CLEANUP = [
        "counter.lua", "tokens.lua", "read_write.lua", "serve.lua", "leave_nothing.lua"
    ];
    UPGRADE = ["counter.lua", "tokens.lua", "read_write.lua", "serve.lua", "upgrade.lua"];
    UPGRADE_WITHDRAW = [
        "counter.lua", "tokens.lua", "read_write.lua", "serve.lua", "upgrade_withdraw.lua"
    ];
    READ_RENEW = [
        "read_renew.lua", "counter.lua", "tokens.lua", "read_write.lua", "serve.lua",
        "renew_slowly.lua"
    ];
    MAY_SHARE = [
        "may_share.lua", "counter.lua", "tokens.lua", "read_write.lua", "serve.lua",
        "may_share_slowly.lua"
    ];

    PERMITS_ACQUIRE = [
        "permits_acquire.lua", "counter.lua", "tokens.lua", "permits.lua", "serve.lua",
        "line.lua", "enter.lua",
        "enter_slowly.lua"
    ];
    PERMITS_PASS_ON = [
        "counter.lua", "tokens.lua", "permits.lua", "serve.lua", "line.lua", "enter.lua",
        "enter_anew.lua"
    ];
    PERMITS_RELEASE = [
        "permits_release.lua", "counter.lua", "tokens.lua", "permits.lua", "serve.lua", "leave.lua"
    ];
    PERMITS_RELEASE_LATER = [
        "counter.lua", "tokens.lua", "permits.lua", "serve.lua", "permits_release_later.lua"
    ];
    PERMITS_CLEANUP = [
        "counter.lua", "tokens.lua", "permits.lua", "serve.lua", "leave_nothing.lua"
    ];
    PERMITS_RENEW = [
        "permits_renew.lua", "counter.lua", "tokens.lua", "permits.lua", "serve.lua",
        "renew_slowly.lua"
    ];
}

pub(super) struct Script {
    text: &'static str,
    hash: String,
}

/// How a script is named to the server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// By its hash, which the server may have forgotten.
    Hash,
    Text,
}

impl Script {
    fn new(text: &'static str) -> Self {
        Self {
            text,
            hash: redis::Script::new(text).get_hash().to_owned(),
        }
    }

    pub(super) fn command(&self, by: By, keys: &[&str], args: &[&str]) -> Cmd {
        let bytes = keys.iter().chain(args).map(|text| text.len());
        let mut command = self.begin(by, keys.len(), args.len(), bytes.sum());
        for text in keys.iter().chain(args) {
            command.arg(*text);
        }
        command
    }

    /// Begins a command with this script, so many keys and arguments, and bytes of both.
    pub(super) fn begin(&self, by: By, keys: usize, args: usize, bytes: usize) -> Cmd {
        let (verb, script) = match by {
            By::Hash => ("EVALSHA", self.hash.as_str()),
            By::Text => ("EVAL", self.text),
        };
        let bytes = verb.len() + script.len() + 4 + bytes;
        let mut command = Cmd::with_capacity(3 + keys + args, bytes);
        command.arg(verb).arg(script).arg(keys);
        command
    }
}
