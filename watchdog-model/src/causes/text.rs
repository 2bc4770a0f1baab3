//! Names of fixed size, so that facts can be copied without allocating.

/// Text of at most `N` bytes, zero-padded, any bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Text<const N: usize>([u8; N]);

/// A path or a name, its end if it is too long.
pub type Label = Text<40>;

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<const N: usize> Text<N> {
    /// Nothing.
    pub const EMPTY: Self = Self([0; N]);

    /// The text, or its last `N` bytes with `~` for what is left out: the end of a path tells more
    /// than its beginning.
    #[must_use]
    pub fn end_of(text: &[u8]) -> Self {
        let mut kept = [0; N];
        if text.len() <= N {
            kept[..text.len()].copy_from_slice(text);
        } else if N > 0 {
            kept.copy_from_slice(&text[text.len() - N..]);
            kept[0] = b'~';
        }
        Self(kept)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(N);
        &self.0[..end]
    }

    /// Whether there is no text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }
}

/// As bytes: serde knows arrays of fixed lengths only.
#[cfg(feature = "serde")]
impl<const N: usize> serde::Serialize for Text<N> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.as_bytes())
    }
}

#[cfg(feature = "serde")]
impl<'de, const N: usize> serde::Deserialize<'de> for Text<N> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes<const N: usize>;
        impl<const N: usize> serde::de::Visitor<'_> for Bytes<N> {
            type Value = Text<N>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "at most {N} bytes")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Text<N>, E> {
                if bytes.len() > N {
                    return Err(E::invalid_length(bytes.len(), &self));
                }
                Ok(Text::end_of(bytes))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

impl<const N: usize> std::fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_is_too_long_the_end_is_kept() {
        let kept = |text: &str| {
            let text = Text::<8>::end_of(text.as_bytes());
            String::from_utf8_lossy(text.as_bytes()).into_owned()
        };
        assert_eq!(kept("loop0"), "loop0");
        assert_eq!(kept("12345678"), "12345678");
        assert_eq!(kept("/var/log/txn"), "~log/txn");
        assert!(Text::<8>::EMPTY.is_empty());
    }
}
