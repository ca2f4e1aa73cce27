//! Just enough of Rust's grammar to tell code from comments and texts.

/// The source with everything inside comments, strings and characters turned into spaces. Line breaks
/// stay, so that places stay the same.
pub(crate) fn code_only(source: &str) -> String {
    let mut lexer = Lexer { rest: source, code: String::with_capacity(source.len()) };
    while !lexer.rest.is_empty() {
        lexer.step();
    }
    lexer.code
}

struct Lexer<'a> {
    rest: &'a str,
    code: String,
}

impl Lexer<'_> {
    fn step(&mut self) {
        let after_word = self.code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if self.rest.starts_with("//") {
            self.blank(self.rest.find('\n').unwrap_or(self.rest.len()));
        } else if self.rest.starts_with("/*") {
            self.blank(block_comment(self.rest));
        } else if let Some(length) = (!after_word).then(|| raw_string(self.rest)).flatten() {
            self.blank(length);
        } else if self.rest.starts_with('"') {
            self.blank(quoted(self.rest, '"'));
        } else if self.rest.starts_with('\'') && is_character(self.rest) {
            self.blank(quoted(self.rest, '\''));
        } else {
            let next = self.rest.chars().next().expect("not at the end");
            self.code.push(next);
            self.rest = &self.rest[next.len_utf8()..];
        }
    }

    fn blank(&mut self, length: usize) {
        let (gone, rest) = self.rest.split_at(length);
        self.code.extend(gone.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        self.rest = rest;
    }
}

/// Block comments nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of r"..", r#".."#, br#".."# and their like, if one starts here.
fn raw_string(text: &str) -> Option<usize> {
    let start = ["br", "cr", "r"].iter().find_map(|prefix| text.strip_prefix(prefix))?;
    let hashes = start.len() - start.trim_start_matches('#').len();
    let body = start[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let opened = text.len() - body.len();
    Some(body.find(&end).map_or(text.len(), |at| opened + at + end.len()))
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Whether the quote opens a character and not a lifetime.
fn is_character(text: &str) -> bool {
    let mut next = text.chars().skip(1);
    match next.next() {
        Some('\\') => true,
        Some(_) => next.next() == Some('\''),
        None => false,
    }
}

/// A function in a source file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// The line that `fn` stands on, from 1.
    pub(crate) line: usize,
    /// Lines from there to its closing brace.
    pub(crate) length: usize,
}

/// All functions with a body, those inside others too.
pub(crate) fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let after = code[at + 3..].trim_start();
        let name: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if name.is_empty() {
            continue;
        }
        if let Some(end) = body_end(code, at) {
            let line = 1 + code[..at].matches('\n').count();
            let length = 1 + code[at..end].matches('\n').count();
            found.push(Function { name, line, length });
        }
    }
    found
}

/// Where the function's closing brace is; nothing for a mere signature.
fn body_end(code: &str, start: usize) -> Option<usize> {
    let mut depth = 0;
    let mut brackets = 0;
    for (at, c) in code[start..].char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            ';' if depth == 0 && brackets == 0 => return None,
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(start + at);
                }
            }
            _ => {}
        }
    }
    None
}

/// The source up to its tests, which by habit stand last.
pub(crate) fn without_tests(code: &str) -> &str {
    let tests = code.match_indices("#[cfg(test)]").find(|(at, found)| {
        let after = code[at + found.len()..].trim_start();
        let after = after.strip_prefix("pub(crate) ").unwrap_or(after);
        after.starts_with("mod ") && code[..*at].ends_with('\n')
    });
    tests.map_or(code, |(at, _)| &code[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_texts_are_no_code() {
        let source = concat!(
            "let a = \"un\\\"safe\"; // unsafe\n",
            "/* unsafe /* nested */ unsafe */ let b = r#\"unsafe \" quote\"#;\n",
            "let c = '\"'; let d: &'static str = \"x\"; let e = '\\'';\n",
            "for_r\"no raw string\";\n",
        );
        let code = code_only(source);
        assert!(!code.contains("unsafe"), "{code}");
        assert!(!code.contains("quote"), "{code}");
        assert!(
            code.contains("let b =") && code.contains("let c =") && code.contains("&'static str"),
            "{code}"
        );
        assert_eq!(code.lines().count(), source.lines().count());
    }

    #[test]
    fn functions_are_measured_with_their_signature() {
        let code = code_only(
            "trait A {\n    fn none(&self);\n}\nfn one() {\n    let c = '}';\n}\nfn two(x: [u8; 3]) {}\n",
        );
        let lengths: Vec<_> = functions(&code).into_iter().map(|f| (f.name, f.line, f.length)).collect();
        assert_eq!(lengths, [("one".to_owned(), 4, 3), ("two".to_owned(), 7, 1)]);
    }

    #[test]
    fn tests_are_cut_off_but_not_what_is_merely_for_tests() {
        let code = "fn a() {}\n#[cfg(test)]\nfn helper() {}\n#[cfg(test)]\nmod tests { fn b() {} }\n";
        assert_eq!(without_tests(code), "fn a() {}\n#[cfg(test)]\nfn helper() {}\n");
    }
}
