//! A page of docs/ of several parts, each made by a command and set between two marks: one is made
//! again while the others stay.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use crate::process::Missing;

/// Which part: what is written in its opening mark.
fn opening(part: &str) -> String {
    format!("<!-- made: {part} -->\n")
}

/// What ends a part.
const END: &str = "<!-- end -->\n";

/// Sets a part of the page anew.
///
/// # Errors
/// The page cannot be read or written, or has no such part.
pub fn set(page: &Path, part: &str, text: &str) -> Result<()> {
    let old = fs::read_to_string(page).with_context(|| format!("reading {}", page.display()))?;
    let new = with_part(&old, part, text).ok_or_else(|| {
        Missing(format!(
            "{} has no part between `{}` and `{}`: put the two lines where it belongs",
            page.display(),
            opening(part).trim_end(),
            END.trim_end()
        ))
    })?;
    fs::write(page, new).with_context(|| format!("writing {}", page.display()))
}

/// A part of the page as it stands.
///
/// # Errors
/// The page cannot be read, or has no such part.
pub fn part(page: &Path, part: &str) -> Result<String> {
    let text = fs::read_to_string(page).with_context(|| format!("reading {}", page.display()))?;
    let found = text
        .split_once(&opening(part))
        .and_then(|(_, rest)| rest.split_once(END));
    let (found, _) = found.with_context(|| format!("{} has no part {part}", page.display()))?;
    Ok(found.to_owned())
}

fn with_part(page: &str, part: &str, text: &str) -> Option<String> {
    let (before, rest) = page.split_once(&opening(part))?;
    let (_, after) = rest.split_once(END)?;
    let (text, opening) = (text.trim_end(), opening(part));
    Some(format!("{before}{opening}{text}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_part_is_set_and_the_others_stay() {
        let page =
            "top\n<!-- made: a -->\nold\n<!-- end -->\nmid\n<!-- made: b -->\nb\n<!-- end -->\n";
        let new = with_part(page, "a", "new\n\n").unwrap();
        assert_eq!(new, page.replace("old", "new"));
        assert_eq!(with_part(&new, "a", "new").unwrap(), new);
        assert_eq!(with_part(page, "c", "new"), None);
    }
}
