//! The codes by which programs tell problems apart.

use serde::Serialize;
use utoipa::ToSchema;

/// Which problem it is, for programs: docs/backends.md says what each means. They stay the same; more may come.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ProblemCode)]
pub(super) enum Code {
    AnswerTooLarge,
    Busy,
    Damaged,
    Deleted,
    Exists,
    IdempotencyKeyReused,
    Incomplete,
    Internal,
    Invalid,
    InvalidChanges,
    InvalidEdit,
    LengthRequired,
    MethodNotAllowed,
    NoSuchChange,
    NoSuchDocument,
    NoSuchPath,
    NoSuchRoute,
    NoSuchWebhook,
    NotAcceptable,
    Origin,
    OutOfBounds,
    PreconditionFailed,
    TestFailed,
    TooCostly,
    TooDeep,
    TooLarge,
    TooManyOrphans,
    TooManyStreams,
    Unavailable,
    UnsupportedMediaType,
    UpgradeRequired,
    WrongType,
}

#[cfg(test)]
mod tests {
    use utoipa::PartialSchema;

    use super::*;

    #[test]
    fn every_code_is_in_the_documents() {
        let schema = serde_json::to_value(Code::schema()).unwrap();
        let codes = schema["enum"].as_array().unwrap();
        assert!(codes.len() > 30);
        for page in ["backends.md", "protocol.md"] {
            let path = format!("{}/../../docs/{page}", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(path).unwrap();
            for code in codes {
                let code = format!("`{}`", code.as_str().unwrap());
                assert!(text.contains(&code), "{page} does not say what {code} is");
            }
        }
    }
}
