//! The description of the API as a page, for people.

use std::fmt::Write as _;

use serde_json::{Map, Value};

const HEAD: &str = include_str!("page_head.html");

/// The page.
pub(super) fn of(description: &Value) -> String {
    let mut page = HEAD.replace("{version}", text(&description["info"]["version"]));
    for tag in description["tags"].as_array().into_iter().flatten() {
        section(&mut page, description, text(&tag["name"]), text(&tag["description"]));
    }
    page.push_str("</main>\n");
    page
}

fn section(page: &mut String, description: &Value, name: &str, about: &str) {
    push(page, format_args!("<h2>{}</h2>\n", escape(about)));
    for (path, methods) in description["paths"].as_object().into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            if operation["tags"].as_array().is_some_and(|tags| tags.iter().any(|tag| tag == name)) {
                self::operation(page, path, method, operation);
            }
        }
    }
}

fn operation(page: &mut String, path: &str, method: &str, operation: &Value) {
    let (method, summary) = (method.to_uppercase(), escape(text(&operation["summary"])));
    push(page, format_args!("<section>\n<h3><code>{method} {}</code> {summary}</h3>\n", escape(path)));
    push(page, format_args!("<p>{}</p>\n", prose(text(&operation["description"]))));
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    rows(
        page,
        "Parameters",
        parameters.map(|parameter| {
            let name =
                format!("{} <small>{}</small>", escape(text(&parameter["name"])), text(&parameter["in"]));
            (name, prose(text(&parameter["description"])))
        }),
    );
    let body = &operation["requestBody"];
    if let Some(kinds) = body["content"].as_object() {
        rows(page, "Body", [(kinds_of(kinds), prose(text(&body["description"])))].into_iter());
    }
    let responses = operation["responses"].as_object().into_iter().flatten();
    rows(
        page,
        "Answers",
        responses.map(|(status, response)| {
            let kinds = response["content"].as_object().map(kinds_of).unwrap_or_default();
            (format!("{} <small>{kinds}</small>", escape(status)), prose(text(&response["description"])))
        }),
    );
    page.push_str("</section>\n");
}

fn kinds_of(kinds: &Map<String, Value>) -> String {
    kinds.keys().map(|kind| escape(kind)).collect::<Vec<_>>().join(", ")
}

fn rows(page: &mut String, title: &str, rows: impl Iterator<Item = (String, String)>) {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return;
    }
    push(page, format_args!("<table>\n<caption>{title}</caption>\n"));
    for (name, about) in rows {
        push(page, format_args!("<tr><th scope=\"row\">{name}</th><td>{about}</td></tr>\n"));
    }
    page.push_str("</table>\n");
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a text does not fail.
    let _ = page.write_fmt(text);
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A description, with what stands between backticks as code.
fn prose(text: &str) -> String {
    let text = escape(text);
    let parts = text.split('`').enumerate();
    parts
        .map(|(place, part)| if place % 2 == 1 { format!("<code>{part}</code>") } else { part.to_owned() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_cannot_break_out() {
        assert_eq!(prose("a `<b>` & c"), "a <code>&lt;b&gt;</code> &amp; c");
    }
}
