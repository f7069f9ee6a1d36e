//! Whether a program needs anything beside the kernel.

use anyhow::{Context, Result, bail, ensure};

/// Program headers that name an interpreter, and that list what is linked dynamically.
const INTERPRETER: u32 = 3;
const DYNAMIC: u32 = 2;
/// An entry of the dynamic list that names a library; and its end.
const NEEDED: u64 = 1;
const END: u64 = 0;
const PROGRAM_HEADER: usize = 56;
const DYNAMIC_ENTRY: usize = 16;

/// Fails when a 64-bit little-endian program has an interpreter or needs a library.
pub(crate) fn check_static(program: &[u8]) -> Result<()> {
    ensure!(
        program.starts_with(b"\x7fELF\x02\x01"),
        "is no 64-bit little-endian ELF program"
    );
    let table = number(program, 32, 8)?;
    let (size, count) = (number(program, 54, 2)?, number(program, 56, 2)?);
    ensure!(
        size == PROGRAM_HEADER as u64,
        "has program headers of {size} bytes; expected {PROGRAM_HEADER}"
    );
    for at in 0..count {
        let header = place(table.saturating_add(at * size))?;
        match u32::try_from(number(program, header, 4)?)? {
            INTERPRETER => bail!("names an interpreter, so it is linked dynamically"),
            DYNAMIC => {
                let start = number(program, header.saturating_add(8), 8)?;
                let length = number(program, header.saturating_add(32), 8)?;
                check_dynamic(program, place(start)?, place(length)?)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_dynamic(program: &[u8], start: usize, length: usize) -> Result<()> {
    for at in 0..length / DYNAMIC_ENTRY {
        match number(program, start.saturating_add(at * DYNAMIC_ENTRY), 8)? {
            NEEDED => bail!("needs a shared library"),
            END => break,
            _ => {}
        }
    }
    Ok(())
}

fn place(value: u64) -> Result<usize> {
    usize::try_from(value).context("is damaged: a place is out of range")
}

/// A little-endian number of up to eight bytes.
fn number(program: &[u8], at: usize, bytes: usize) -> Result<u64> {
    let end = at.saturating_add(bytes);
    let found = program
        .get(at..end)
        .context("is damaged: it ends too early")?;
    Ok(found
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program with these program headers, each a kind with a dynamic list of these entries.
    fn program(headers: &[(u32, &[u64])]) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01".to_vec();
        bytes.resize(64, 0);
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = u8::try_from(headers.len()).unwrap();
        let mut lists = Vec::new();
        for (kind, entries) in headers {
            let start = 64 + headers.len() * PROGRAM_HEADER + lists.len();
            let mut header = [0; PROGRAM_HEADER];
            header[..4].copy_from_slice(&kind.to_le_bytes());
            header[8..16].copy_from_slice(&(start as u64).to_le_bytes());
            let length = (entries.len() * DYNAMIC_ENTRY) as u64;
            header[32..40].copy_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&header);
            for entry in *entries {
                lists.extend_from_slice(&entry.to_le_bytes());
                lists.extend_from_slice(&[0; 8]);
            }
        }
        bytes.extend(lists);
        bytes
    }

    #[test]
    fn only_programs_that_need_nothing_pass() {
        check_static(&program(&[(1, &[])])).unwrap();
        // Position-independent static programs have a dynamic list; what is behind its end does not count.
        check_static(&program(&[(1, &[]), (DYNAMIC, &[30, 5, END, NEEDED])])).unwrap();
        let refused = |bytes: &[u8]| check_static(bytes).unwrap_err().to_string();
        assert!(refused(&program(&[(DYNAMIC, &[5, NEEDED])])).contains("library"));
        assert!(refused(&program(&[(INTERPRETER, &[])])).contains("interpreter"));
        assert!(refused(b"#!/bin/sh").contains("no 64-bit"));
        let whole = program(&[(DYNAMIC, &[5, 5])]);
        assert!(refused(&whole[..whole.len() - 20]).contains("too early"));
        assert!(refused(&whole[..40]).contains("too early"));
    }

    #[test]
    fn the_tests_themselves_are_linked_dynamically() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(check_static(&own).is_err());
    }
}
