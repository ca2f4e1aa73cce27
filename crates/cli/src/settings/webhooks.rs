//! The file of webhooks. They have a file of their own because their secrets have no place on a command line.

use std::fs;
use std::path::Path;

use highwater_server::{Secret, Webhook};
use toml::{Table, Value};

/// Longest name of a webhook.
const NAME_BYTES_MAX: usize = 64;

/// Reads all webhooks from a file. An error says what is wrong, without repeating a secret.
pub(super) fn read(path: &Path) -> Result<Vec<Webhook>, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    // The parser shows the line at fault, which may hold a secret.
    let table: Table = text
        .parse()
        .map_err(|error: toml::de::Error| format!("it is not valid TOML: {}", error.message()))?;
    if let Some(key) = table.keys().find(|key| *key != "webhook") {
        return Err(format!("there is no `{key}` in it: it is made of parts that begin with [[webhook]]"));
    }
    let parts = match table.get("webhook") {
        None => return Ok(Vec::new()),
        Some(Value::Array(parts)) => parts,
        Some(_) => return Err("a webhook begins with [[webhook]], with two brackets".to_owned()),
    };
    let mut hooks: Vec<Webhook> = Vec::with_capacity(parts.len());
    for (place, part) in parts.iter().enumerate() {
        let hook = webhook(part).map_err(|detail| format!("webhook number {}: {detail}", place + 1))?;
        if hooks.iter().any(|before| before.name == hook.name) {
            return Err(format!("two webhooks are called {:?}", hook.name));
        }
        hooks.push(hook);
    }
    Ok(hooks)
}

fn webhook(part: &Value) -> Result<Webhook, String> {
    let table = part.as_table().ok_or("it has no keys")?;
    if let Some(key) = table.keys().find(|key| !["name", "url", "secret"].contains(&key.as_str())) {
        return Err(format!("it has name, url and secret, and no `{key}`"));
    }
    let text = |key: &str| {
        let value = table.get(key).ok_or_else(|| format!("it has no {key}"))?;
        value.as_str().ok_or_else(|| format!("its {key} is no text"))
    };
    let name = text("name")?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_plain) {
        return Err(format!("its name has 1 to {NAME_BYTES_MAX} letters, digits, and - _ ."));
    }
    Webhook::new(name, text("url")?, Secret::parse(text("secret")?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn read_text(text: &str) -> Result<Vec<Webhook>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        read(file.path())
    }

    #[test]
    fn webhooks_are_read_and_what_is_wrong_is_said_without_the_secret() {
        let one =
            format!("[[webhook]]\nname = \"a\"\nurl = \"https://example.com/x\"\nsecret = \"{SECRET}\"\n");
        let hooks = read_text(&one).unwrap();
        assert_eq!((hooks.len(), &*hooks[0].name), (1, "a"));
        assert!(read_text("").unwrap().is_empty());
        let wrong = [
            (one.repeat(2), "two webhooks"),
            (one.replace("[[webhook]]", "[webhook]"), "two brackets"),
            (one.replace("name", "nom"), "no `nom`"),
            (one.replace("https://", "ftp://"), "http://"),
            (one.replace("https://", "https://MfKQ:MfKQ@"), "signature"),
            (one.replace("\"a\"", "\"a b\""), "letters"),
            (one.replace("whsec_", ""), "whsec_"),
            (one.replace("name = \"a\"\n", ""), "no name"),
            (one.replace("secret = \"", "secret = "), "TOML"),
        ];
        for (text, part) in wrong {
            let detail = read_text(&text).unwrap_err();
            assert!(detail.contains(part) && !detail.contains("MfKQ"), "{detail}");
        }
    }
}
