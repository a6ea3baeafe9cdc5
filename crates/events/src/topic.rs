//! What an event is about: `document.created`. The same rules as `insula.is_topic()` and `insula.wants()`.

const MOST: usize = 100;

/// Words of `a-z`, `0-9`, `_` and `-` with dots between, at most 100 bytes.
#[must_use]
pub fn is_topic(text: &str) -> bool {
    let word = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
    };
    text.len() <= MOST && text.split('.').all(word)
}

/// `*`, `document.*` or a topic.
#[must_use]
pub fn is_pattern(text: &str) -> bool {
    text == "*" || is_topic(text.strip_suffix(".*").unwrap_or(text))
}

/// Whether one of the patterns means the topic.
#[must_use]
pub fn wants<S: AsRef<str>>(patterns: &[S], topic: &str) -> bool {
    patterns.iter().map(AsRef::as_ref).any(|pattern| {
        // With its dot: `document.*` is not about `documents.x`.
        let prefix = pattern.strip_suffix('*').filter(|prefix| prefix.ends_with('.'));
        pattern == "*" || pattern == topic || prefix.is_some_and(|prefix| topic.starts_with(prefix))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_words_with_dots() {
        for good in ["a", "document.created", "a-b.c_d.9"] {
            assert!(is_topic(good) && is_pattern(good), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "A", "a b", "a.*", "a.>", "*", "a\n", "ä", &"a".repeat(101)] {
            assert!(!is_topic(bad), "{bad:?}");
        }
        assert!(is_pattern("*") && is_pattern("a.*") && is_pattern("a.b.*"));
        assert!(!is_pattern("*.a") && !is_pattern("a*") && !is_pattern(".*") && !is_pattern("a.*.*"));
    }

    #[test]
    fn patterns_mean_a_topic_or_what_begins_with_it() {
        assert!(wants(&["*"], "a.b") && wants(&["a.*"], "a.b") && wants(&["a.*"], "a.b.c") && wants(&["x", "a.b"], "a.b"));
        assert!(!wants(&["a.*"], "a") && !wants(&["a.*"], "ab.c") && !wants(&["a"], "a.b") && !wants::<&str>(&[], "a"));
    }
}
