//! Text of others on a terminal or in a file of ours.

/// Names of processes and files may hold anything: what a terminal would obey, or a line would end by,
/// becomes `?`.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|one| if one.is_control() { '?' } else { one })
        .collect()
}

/// The same of a text of several lines: their ends and tabs stay.
#[must_use]
pub fn printable_lines(text: &str) -> String {
    text.chars()
        .map(|one| if obeyed(one) { '?' } else { one })
        .collect()
}

/// What a terminal would obey, between the lines of a text.
#[must_use]
pub fn obeyed(one: char) -> bool {
    one.is_control() && !matches!(one, '\n' | '\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_not_printed() {
        assert_eq!(printable("a\x1b[2Jb\u{9b}c\n"), "a?[2Jb?c?");
        assert_eq!(printable_lines("\ta\x1b[2J\nb\r"), "\ta?[2J\nb?");
    }
}
