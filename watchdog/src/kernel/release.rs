//! Which kernel runs.
//!
//! In: `/proc/sys/kernel/osrelease`. Out: its text and its numbers. Never: what a kernel of that number can
//! do: hooks are tried, and distributions carry patches back.

/// The running kernel's release, as `uname -r` says it; empty if it cannot be read.
#[must_use]
pub fn running() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Major and minor version that a release begins with.
#[must_use]
pub fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || parts.next()?.parse().ok();
    Some((number()?, number()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_all_kinds_have_their_numbers() {
        for (release, numbers) in [
            ("6.1.0-18-amd64", Some((6, 1))),
            ("5.10.0-28-cloud-amd64", Some((5, 10))),
            ("7.2-rc3", Some((7, 2))),
            ("6", None),
            ("", None),
            ("next.6.1", None),
        ] {
            assert_eq!(version(release), numbers, "{release}");
        }
        assert!(version(&running()).is_some());
    }
}
