//! `stat`, `mkdir`, `move`, `copy`, `chmod`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Work, done, locate, told};
use crate::api::daemon::members::{Members, Refused};
use crate::files::{Copied, Existing, LastLink, Made, Owner, Parents, Status};

pub(super) fn stat(members: &mut Members) -> Result<Work, Refused> {
    let path = members.text("path")?;
    let last = if members.flag("follow", true)? {
        LastLink::Follow
    } else {
        LastLink::Keep
    };
    Ok(Box::new(move |root, _| {
        let status = root.stat(&locate(root, &path)?, last)?;
        told(&described(&path, &status))
    }))
}

fn described(path: &str, status: &Status) -> Value {
    let mut value = json!({
        "path": path,
        "type": status.kind.name(),
        "size": status.size,
        "mode": format!("{:04o}", status.mode),
        "modified_at": Timestamp::try_from(status.modified).unwrap_or_default().to_string(),
        "uid": status.uid,
        "gid": status.gid,
        "etag": format!("\"{}\"", status.version),
    });
    if let (Some(target), Some(members)) = (&status.target, value.as_object_mut()) {
        members.insert("target".into(), target.to_string_lossy().into());
    }
    value
}

pub(super) fn mkdir(members: &mut Members) -> Result<Work, Refused> {
    let path = members.text("path")?;
    let mode = members.mode("mode")?;
    let parents = if members.flag("parents", false)? {
        Parents::Create
    } else {
        Parents::Require
    };
    Ok(Box::new(move |root, _| {
        let outcome = root.make_directory(&locate(root, &path)?, parents, mode)?;
        told(&json!({"created": outcome == Made::New}))
    }))
}

/// `from`, `to` and `overwrite`.
fn both_ends(members: &mut Members) -> Result<(String, String, Existing), Refused> {
    let (from, to) = (members.text("from")?, members.text("to")?);
    let existing = if members.flag("overwrite", false)? {
        Existing::Replace
    } else {
        Existing::Keep
    };
    Ok((from, to, existing))
}

pub(super) fn move_to(members: &mut Members) -> Result<Work, Refused> {
    let (from, to, existing) = both_ends(members)?;
    Ok(Box::new(move |root, caller| {
        let (from, to) = (locate(root, &from)?, locate(root, &to)?);
        root.move_to(&from, &to, existing, caller)?;
        done()
    }))
}

pub(super) fn copy(members: &mut Members) -> Result<Work, Refused> {
    let (from, to, existing) = both_ends(members)?;
    Ok(Box::new(move |root, caller| {
        let (from, to) = (locate(root, &from)?, locate(root, &to)?);
        told(&counted(&root.copy(&from, &to, existing, caller)?))
    }))
}

fn counted(copied: &Copied) -> Value {
    let skipped: Vec<_> = copied
        .skipped
        .iter()
        .map(|path| path.to_string_lossy())
        .collect();
    json!({
        "files": copied.files,
        "directories": copied.directories,
        "links": copied.links,
        "bytes": copied.bytes,
        "skipped": skipped,
        "skipped_total": copied.skipped_total,
    })
}

pub(super) fn chmod(members: &mut Members) -> Result<Work, Refused> {
    // The largest number means "unchanged" to the system, and so nobody.
    let numbers = 0..=u32::MAX - 1;
    let path = members.text("path")?;
    let mode = members.mode("mode")?;
    let owner = Owner {
        uid: members.number("uid", &numbers)?,
        gid: members.number("gid", &numbers)?,
    };
    if mode.is_none() && owner.is_none() {
        return Err(Refused::new(
            "nothing is to be changed; expected at least one of mode, uid, gid",
        ));
    }
    Ok(Box::new(move |root, _| {
        root.change(&locate(root, &path)?, mode, owner)?;
        done()
    }))
}
