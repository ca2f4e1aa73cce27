//! Parts of a page that are written by a program, between two comments. All around them is written by hand and stays.

use anyhow::{Context as _, Result, bail};

/// The page with another text between the markers of this name.
pub(super) fn replace(page: &str, name: &str, text: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- begin: {name} -->"), format!("<!-- end: {name} -->"));
    let (before, rest) = page.split_once(&begin).with_context(|| format!("there is no `{begin}`"))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("there is no `{end}` after `{begin}`"))?;
    if after.contains(&begin) {
        bail!("`{begin}` is there twice");
    }
    Ok(format!("{before}{begin}\n{}\n{end}{after}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# Page\n\n<!-- begin: a -->\nold\n<!-- end: a -->\n\nBy hand.\n\n<!-- begin: b -->\n<!-- end: b -->\n";

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let page = replace(PAGE, "a", "| new |\n").unwrap();
        assert_eq!(page, PAGE.replace("old", "| new |"));
        // Again, and it stays as it is.
        assert_eq!(replace(&page, "a", "| new |").unwrap(), page);
        let page = replace(&page, "b", "more").unwrap();
        assert!(page.contains("<!-- begin: b -->\nmore\n<!-- end: b -->\n"));
        assert!(page.contains("\n\nBy hand.\n\n"));
    }

    #[test]
    fn a_page_without_the_markers_is_not_touched() {
        for page in ["nothing", "<!-- begin: a -->", "<!-- end: a --><!-- begin: a -->"] {
            assert!(replace(page, "a", "x").is_err());
        }
        assert!(replace(&PAGE.repeat(2), "a", "x").is_err());
    }
}
