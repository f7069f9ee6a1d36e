//! Users of the container, as `/etc/passwd` and `/etc/group` name them.
//!
//! The files are read directly: a static program cannot load the plugins of the C library's lookup,
//! and containers have no other source of names.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;

use crate::sys::spawn::Identity;

/// Who a command runs as.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    identity: Identity,
    /// Login name and home directory, if the user is known by name.
    account: Option<(String, String)>,
}

/// Why a user cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// Nobody has that name.
    #[error(
        "there is no user {0:?} in /etc/passwd; expected a name, a number, or either with a group behind a colon"
    )]
    Unknown(String),
    /// No group has that name.
    #[error("there is no group {0:?} in /etc/group")]
    UnknownGroup(String),
    /// This process may not become another user.
    #[error("commands can run as another user only where the runtime runs as root")]
    Unprivileged,
    /// A file that is there cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

impl User {
    /// The user that `text` means: `NAME`, `UID`, `NAME:GROUP` or `UID:GID`. Numbers need no entry in any
    /// file. `None` when that is who this process runs as, so that nothing has to change.
    ///
    /// # Errors
    /// See [`UserError`].
    pub fn find(text: &str) -> Result<Option<Self>, UserError> {
        let user = lookup(text, &read(PASSWD)?, &read(GROUP)?)?;
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        if (user.identity.uid, user.identity.gid) == (uid.as_raw(), gid.as_raw()) {
            return Ok(None);
        }
        if uid.is_root() {
            Ok(Some(user))
        } else {
            Err(UserError::Unprivileged)
        }
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What programs expect to find about their user.
    pub(super) fn variables(&self) -> impl Iterator<Item = (OsString, OsString)> {
        self.account.iter().flat_map(|(name, home)| {
            [("HOME", home), ("USER", name), ("LOGNAME", name)]
                .map(|(variable, value)| (variable.into(), value.into()))
        })
    }
}

/// More than this is no list of users.
const LARGEST: u64 = 1 << 20;

/// A missing file knows nobody, as in images that hold one program. What an agent put in its place must
/// neither stop nor fill this process.
fn read(path: &'static str) -> Result<String, UserError> {
    let unreadable = |source| UserError::Unreadable { path, source };
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let found = file.metadata().map_err(unreadable)?;
    if !found.is_file() || found.len() > LARGEST {
        let text = "expected a regular file of at most 1 MiB";
        return Err(unreadable(io::Error::other(text)));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The number of a user or group. The highest one means "as before" to the kernel: who asked for it
/// would stay root.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number != u32::MAX)
}

fn lookup(text: &str, passwd: &str, group: &str) -> Result<User, UserError> {
    let (user, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let account = accounts(passwd).find(|account| account.is(user));
    let (uid, own_gid) = match (&account, number(user)) {
        (Some(account), _) => (account.uid, account.gid),
        // As container runtimes have it: a number without an account is in the root group.
        (None, Some(uid)) => (uid, 0),
        (None, None) => return Err(UserError::Unknown(user.to_owned())),
    };
    let gid = match wanted_group {
        None => own_gid,
        Some(wanted) => groups(group)
            .find(|(name, ..)| *name == wanted)
            .map(|(_, gid, _)| gid)
            .or_else(|| number(wanted))
            .ok_or_else(|| UserError::UnknownGroup(wanted.to_owned()))?,
    };
    let name = account.as_ref().map(|account| account.name);
    let mut supplementary: Vec<u32> = groups(group)
        .filter(|(.., members)| name.is_some_and(|name| members.split(',').any(|one| one == name)))
        .map(|(_, gid, _)| gid)
        .filter(|other| *other != gid)
        .collect();
    supplementary.sort_unstable();
    supplementary.dedup();
    Ok(User {
        identity: Identity {
            uid,
            gid,
            groups: supplementary,
        },
        account: account.map(|account| (account.name.to_owned(), account.home.to_owned())),
    })
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl Account<'_> {
    fn is(&self, text: &str) -> bool {
        self.name == text || number(text) == Some(self.uid)
    }
}

/// Lines that are no account are passed over, as the C library does.
fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = number(fields.nth(1)?)?;
        let gid = number(fields.next()?)?;
        let home = fields.nth(1)?;
        Some(Account {
            name,
            uid,
            gid,
            home,
        })
    })
}

/// Name, number and members of each group.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = number(fields.nth(1)?)?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/sh\n# comment\nbroken:x\nwrong:x:4294967295:0::/:/bin/sh\nagent:x:1000:1001:An agent,,,:/home/agent:/bin/bash\n";
    const GROUPS: &str =
        "root:x:0:\nagents:x:1001:agent\nvideo:x:44:other,agent\naudio:x:29:agentx\nstaff:x:50:\n";

    #[test]
    fn users_are_found_by_name_and_number_with_their_groups() {
        for (text, uid, gid, groups, home) in [
            ("agent", 1000, 1001, vec![44], Some("/home/agent")),
            ("1000", 1000, 1001, vec![44], Some("/home/agent")),
            ("agent:staff", 1000, 50, vec![44, 1001], Some("/home/agent")),
            ("1000:7", 1000, 7, vec![44, 1001], Some("/home/agent")),
            ("4242", 4242, 0, vec![], None),
            ("4242:4243", 4242, 4243, vec![], None),
            ("root", 0, 0, vec![], Some("/root")),
        ] {
            let user = lookup(text, USERS, GROUPS).unwrap();
            assert_eq!(user.identity, Identity { uid, gid, groups }, "{text}");
            let found = user.account.as_ref().map(|(_, home)| home.as_str());
            assert_eq!(found, home, "{text}");
        }
    }

    #[test]
    fn who_is_not_there_is_named() {
        for (text, says) in [
            ("nobody", "there is no user \"nobody\""),
            ("broken", "there is no user \"broken\""),
            ("", "there is no user \"\""),
            ("-1", "there is no user \"-1\""),
            ("4294967295", "there is no user \"4294967295\""),
            ("1000:4294967295", "there is no group \"4294967295\""),
            ("wrong", "there is no user \"wrong\""),
            ("agent:wheel", "there is no group \"wheel\""),
            ("agent:", "there is no group \"\""),
        ] {
            let error = lookup(text, USERS, GROUPS).unwrap_err().to_string();
            assert!(error.starts_with(says), "{error}");
        }
    }

    #[test]
    fn the_environment_names_the_user() {
        let user = lookup("agent", USERS, GROUPS).unwrap();
        let variables: Vec<_> = user.variables().collect();
        let expected = [
            ("HOME", "/home/agent"),
            ("USER", "agent"),
            ("LOGNAME", "agent"),
        ];
        assert_eq!(
            variables,
            expected.map(|(name, value)| (OsString::from(name), OsString::from(value)))
        );
        assert_eq!(
            lookup("4242", USERS, GROUPS).unwrap().variables().count(),
            0
        );
    }

    #[test]
    fn what_is_no_list_of_users_is_refused_without_waiting_for_anybody() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| -> &'static str {
            let path = directory.path().join(name);
            Box::leak(
                path.into_os_string()
                    .into_string()
                    .unwrap()
                    .into_boxed_str(),
            )
        };
        let fifo = path("fifo");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
        rustix::fs::mknodat(rustix::fs::CWD, fifo, kind, mode, 0).unwrap();
        let large = path("large");
        File::create(large).unwrap().set_len(LARGEST + 1).unwrap();
        let (told, tell) = std::sync::mpsc::channel();
        for path in [fifo, large, path("."), "/dev/zero"] {
            let told = told.clone();
            // Who opens a FIFO in the usual way waits for a writer, which never comes.
            std::thread::spawn(move || {
                told.send(read(path).map_err(|error| (error.to_string(), error)))
            });
            let (text, error) = tell
                .recv_timeout(std::time::Duration::from_secs(60))
                .expect("an answer in time")
                .unwrap_err();
            assert_eq!(text, format!("cannot read {path}"));
            let UserError::Unreadable { source, .. } = error else {
                panic!("{error}");
            };
            assert!(
                source.to_string().contains("a regular file"),
                "{path}: {source}"
            );
        }
        assert_eq!(read(path("missing")).unwrap(), "");
    }
}
