//! The nearest known name for a misspelled one.

/// Returns the name in `known` that `word` was probably meant to be, or `None` if no name is near enough.
///
/// A name is near when at most a third of its characters differ. Letter case and the kind of separator (`-`, `_`, `.`,
/// blank) make no difference.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = normalized(word);
    let distances = known.into_iter().map(|name| {
        let normalized = normalized(name);
        (strsim::osa_distance(&word, &normalized), normalized.chars().count(), name)
    });
    let (distance, length, name) = distances.min_by_key(|(distance, ..)| *distance)?;
    (distance <= MAX_DISTANCE.min(length / 3)).then_some(name)
}

fn normalized(word: &str) -> String {
    let word = word.chars().take(MAX_WORD_LENGTH);
    word.map(|letter| if matches!(letter, '-' | '.' | ' ') { '_' } else { letter.to_ascii_lowercase() }).collect()
}

/// More differences than this make another word.
const MAX_DISTANCE: usize = 3;

/// Bounds the work for a long value, such as a secret that was pasted in the place of a name.
const MAX_WORD_LENGTH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 6] = ["wecom", "wechat", "wechat-classic", "oauth2", "corp_id", "secret"];

    #[test]
    fn a_misspelled_name_finds_the_nearest_one() {
        for (word, name) in [
            ("wecon", "wecom"),
            ("wechta", "wechat"),
            ("WeCom", "wecom"),
            ("wechat_classic", "wechat-classic"),
            ("wechatclassic", "wechat-classic"),
            ("oauth", "oauth2"),
            ("secert", "secret"),
            ("corpid", "corp_id"),
        ] {
            assert_eq!(nearest(word, KNOWN), Some(name), "{word}");
        }
    }

    #[test]
    fn a_word_that_is_like_no_name_finds_none() {
        for word in ["", "x", "salesforce", "token_url", &"secret".repeat(1000)] {
            assert_eq!(nearest(word, KNOWN), None, "{word}");
        }
        assert_eq!(nearest("wecom", []), None);
    }

    #[test]
    fn the_edit_distance_counts_each_difference_once() {
        let distance = |from: &str, to: &str| strsim::osa_distance(&normalized(from), &normalized(to));
        for (from, to, expected) in
            [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("abc", "abc", 0), ("abc", "acb", 1), ("abcd", "badc", 2)]
        {
            assert_eq!(distance(from, to), expected, "{from} {to}");
        }
    }
}
