//! The `ar` archive that a Debian package is.

use anyhow::{Context, Result, bail, ensure};

const MAGIC: &[u8] = b"!<arch>\n";
/// Name (16), time (12), owner (6), group (6), mode (8), size (10) and two bytes of end mark.
const HEADER: usize = 60;
const END_MARK: &[u8] = b"`\n";

/// The members with their names, in order.
pub(crate) fn members(archive: &[u8]) -> Result<Vec<(String, &[u8])>> {
    let mut rest = archive
        .strip_prefix(MAGIC)
        .context("is no ar archive: the first line is not `!<arch>`")?;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let Some((header, content)) = rest.split_at_checked(HEADER) else {
            bail!("ends within the header of member {}", found.len() + 1);
        };
        let (name, size) = header_fields(header)
            .with_context(|| format!("the header of member {} is malformed", found.len() + 1))?;
        let Some((data, after)) = content.split_at_checked(size) else {
            bail!("ends within the member {name}, which has {size} bytes");
        };
        found.push((name, data));
        // Members begin at even offsets; the byte between may be missing at the end.
        rest = after.get(size % 2..).unwrap_or_default();
    }
    Ok(found)
}

fn header_fields(header: &[u8]) -> Result<(String, usize)> {
    ensure!(header.ends_with(END_MARK), "its end mark is missing");
    let field = |from: usize, to: usize| -> Result<&str> {
        let bytes = header.get(from..to).unwrap_or_default();
        Ok(std::str::from_utf8(bytes)?.trim_end())
    };
    let name = field(0, 16)?.trim_end_matches('/').to_owned();
    let size = field(48, 58)?;
    let size = size
        .parse()
        .with_context(|| format!("size: expected a number, found {size:?}"))?;
    Ok((name, size))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An archive of these members, as `ar` writes it.
    pub(crate) fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for (name, data) in members {
            let header = format!(
                "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
                0,
                0,
                0,
                100_644,
                data.len()
            );
            assert_eq!(header.len(), HEADER);
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(data);
            if data.len() % 2 == 1 {
                bytes.push(b'\n');
            }
        }
        bytes
    }

    #[test]
    fn members_are_found_in_order() {
        let bytes = archive(&[("one", b"1"), ("two/", b"22"), ("none", b"")]);
        let expected: [(String, &[u8]); 3] = [
            ("one".into(), b"1"),
            ("two".into(), b"22"),
            ("none".into(), b""),
        ];
        assert_eq!(members(&bytes).unwrap(), expected);
        assert!(members(&archive(&[])).unwrap().is_empty());
    }

    #[test]
    fn broken_archives_are_refused_with_the_place() {
        let whole = archive(&[("one", b"1"), ("two", b"2222")]);
        let mut no_mark = whole.clone();
        no_mark[8 + HEADER - 1] = b'x';
        let mut no_size = whole.clone();
        no_size[8 + 48] = b'x';
        for (bytes, expected) in [
            (&b"PK"[..], "no ar archive"),
            (b"", "no ar archive"),
            (
                &whole[..whole.len() - 1],
                "within the member two, which has 4 bytes",
            ),
            (
                &whole[..8 + HEADER + 2 + 10],
                "within the header of member 2",
            ),
            (&no_mark, "end mark"),
            (&no_size, "expected a number"),
        ] {
            let error = format!("{:#}", members(bytes).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
