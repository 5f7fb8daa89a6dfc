//! From the fields of a request to the domain's types, with all that is wrong
//! with them said at once.

use std::{collections::HashSet, hash::Hash, str::FromStr, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use prost::Message;
use prost_types::FieldMask;
use tonic::Status;

use super::status;
use crate::{
    domain::{AllowedIps, Invalid, ScopeSet, Timestamp},
    proto::v1 as proto,
    rights::Right,
    store::Cursor,
};

const DEFAULT_PAGE: i64 = 100;
const MAX_PAGE: i64 = 1_000;

/// A page ends before it is larger than this, in bytes: clients refuse 4 MiB.
pub(super) const MAX_PAGE_BYTES: usize = 2 * 1024 * 1024;

/// How many elements a field may have that is to be done as a whole.
const MAX_ELEMENTS: usize = 1_000;

/// How many fields an error names at most.
const MAX_VIOLATIONS: usize = 16;

/// What is wrong with the fields of one request.
#[derive(Default)]
pub(super) struct Fields {
    violations: Vec<(String, String)>,
    /// What precedes the name of a field: of which element it is.
    element: String,
}

impl Fields {
    /// Notes that a field holds what it may not.
    pub(super) fn wrong(&mut self, field: impl Into<String>, reason: impl ToString) {
        // They travel in a header, which clients take only so long.
        if self.violations.len() < MAX_VIOLATIONS {
            let field = format!("{}{}", self.element, field.into());
            self.violations.push((field, reason.to_string()));
        }
    }

    /// Parses a field; `None` is noted.
    pub(super) fn parse<T: FromStr<Err = Invalid>>(
        &mut self,
        field: &str,
        text: &str,
    ) -> Option<T> {
        self.take(field, text.parse())
    }

    /// Parses a field that may be unset.
    pub(super) fn parse_if_set<T: FromStr<Err = Invalid>>(
        &mut self,
        field: &str,
        text: Option<&str>,
    ) -> Option<T> {
        text.and_then(|text| self.parse(field, text))
    }

    /// Parses a field whose empty text clears it: `Some(None)`.
    pub(super) fn parse_or_clear<T: FromStr<Err = Invalid>>(
        &mut self,
        field: &str,
        text: Option<&str>,
    ) -> Option<Option<T>> {
        text.map(|text| if text.is_empty() { None } else { self.parse(field, text) })
    }

    pub(super) fn scopes(&mut self, field: &str, texts: &[String]) -> ScopeSet {
        let mut scopes = ScopeSet::default();
        for (at, text) in texts.iter().enumerate() {
            self.take(&format!("{field}[{at}]"), scopes.push(text));
        }
        scopes
    }

    pub(super) fn networks(&mut self, field: &str, texts: &[String]) -> AllowedIps {
        let mut networks = AllowedIps::default();
        for (at, text) in texts.iter().enumerate() {
            self.take(&format!("{field}[{at}]"), networks.push(text));
        }
        networks
    }

    pub(super) fn instant(
        &mut self,
        field: &str,
        instant: prost_types::Timestamp,
    ) -> Option<Timestamp> {
        let parsed = Timestamp::from_seconds_and_nanos(instant.seconds, instant.nanos);
        self.take(field, parsed.ok_or("must be an instant between the years 1 and 9999"))
    }

    pub(super) fn duration(
        &mut self,
        field: &str,
        duration: prost_types::Duration,
    ) -> Option<Duration> {
        let parsed = match (u64::try_from(duration.seconds), u32::try_from(duration.nanos)) {
            (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Duration::new(seconds, nanos)),
            _ => Err("must not be negative"),
        };
        self.take(field, parsed)
    }

    /// Parses each element of a field; what is wrong in one is said to be in that.
    pub(super) fn each<T, U>(
        &mut self,
        field: &str,
        elements: Vec<T>,
        mut parse: impl FnMut(&mut Self, T) -> Option<U>,
    ) -> Vec<U> {
        if elements.len() > MAX_ELEMENTS {
            self.wrong(field, format!("must have at most {MAX_ELEMENTS} elements"));
            return Vec::new();
        }
        let mut parsed = Vec::with_capacity(elements.len());
        for (at, element) in elements.into_iter().enumerate() {
            self.element = format!("{field}[{at}].");
            parsed.extend(parse(self, element));
        }
        self.element.clear();
        parsed
    }

    /// Notes that a field holds what the same field of another element holds.
    pub(super) fn once<T: Eq + Hash>(
        &mut self,
        field: &str,
        seen: &mut HashSet<T>,
        value: Option<T>,
    ) {
        if value.is_some_and(|value| !seen.insert(value)) {
            self.wrong(field, "is there twice");
        }
    }

    /// The size of a page: 0 is the default, and what is too large is the most.
    fn page_size(&mut self, size: i32) -> i64 {
        match i64::from(size) {
            0 => DEFAULT_PAGE,
            size if size < 0 => {
                self.wrong("page_size", "must not be negative");
                0
            }
            size => size.min(MAX_PAGE),
        }
    }

    /// The page that a request asks for.
    pub(super) fn page(&mut self, right: &Right, request: &impl Paged) -> Page {
        let mut list = request.clone();
        let (size, token) = list.take_page();
        let list = list_of(right, &list);
        Page { size: self.page_size(size), after: self.cursor(&token, list), list }
    }

    /// Where a page begins, by the token that the page before it ended with.
    fn cursor(&mut self, page_token: &str, request: u32) -> Option<Cursor> {
        if page_token.is_empty() {
            return None;
        }
        let cursor = parse_page_token(page_token, request);
        self.take("page_token", cursor.ok_or("is not one that this request was given"))
    }

    /// Which fields an update is to change, of those that it knows.
    pub(super) fn mask(&mut self, mask: Option<FieldMask>, known: &[&str]) -> Mask {
        let Some(mask) = mask else { return Mask(None) };
        for (at, path) in mask.paths.iter().enumerate() {
            if !known.contains(&path.as_str()) {
                self.wrong(
                    format!("update_mask.paths[{at}]"),
                    "names no field that can be updated",
                );
            }
        }
        Mask(Some(mask.paths))
    }

    /// A field that must not be empty.
    pub(super) fn not_empty(&mut self, field: &str, text: String) -> String {
        if text.is_empty() {
            self.wrong(field, "must not be empty");
        }
        text
    }

    /// An error that says all that is wrong, if anything is.
    pub(super) fn check(&mut self) -> Result<(), Status> {
        if self.violations.is_empty() {
            Ok(())
        } else {
            Err(status::invalid(std::mem::take(&mut self.violations)))
        }
    }

    /// `value`, which is there unless something is wrong.
    pub(super) fn require<T>(&mut self, field: &str, value: Option<T>) -> Result<T, Status> {
        self.check()?;
        value.ok_or_else(|| status::invalid(vec![(field.to_owned(), "must be set".to_owned())]))
    }

    fn take<T>(&mut self, field: &str, parsed: Result<T, impl ToString>) -> Option<T> {
        parsed.map_err(|error| self.wrong(field, error)).ok()
    }
}

/// The fields that an update names; `None`: those that are present.
pub(super) struct Mask(Option<Vec<String>>);

impl Mask {
    /// The value to set: what is present and not left out by the mask, or
    /// `cleared` where the mask names what is not present.
    pub(super) fn pick<T>(
        &self,
        field: &str,
        present: Option<T>,
        cleared: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        match &self.0 {
            None => present,
            Some(paths) if paths.iter().any(|path| path == field) => present.or_else(cleared),
            Some(_) => None,
        }
    }

    /// The same for a field that can't be cleared.
    pub(super) fn pick_filled<T>(
        &self,
        fields: &mut Fields,
        field: &str,
        present: Option<T>,
    ) -> Option<T> {
        self.pick(field, present, || {
            fields.wrong(field, "can't be cleared");
            None
        })
    }
}

/// A request for a page of a list.
pub(super) trait Paged: Message + Clone {
    /// Takes out what is said of the page: its size, and its token.
    fn take_page(&mut self) -> (i32, String);
}

macro_rules! paged {
    ($($request:ident),* $(,)?) => {
        $(impl Paged for proto::$request {
            fn take_page(&mut self) -> (i32, String) {
                (std::mem::take(&mut self.page_size), std::mem::take(&mut self.page_token))
            }
        })*
    };
}

paged![
    ListPersonalAccessTokensRequest,
    WorkspaceListPatsRequest,
    ListUsersRequest,
    ListOrganizationsRequest,
    ListWorkspacesRequest,
    ListMembershipsRequest,
    ListUsageRequest,
];

/// The page that a request asks for.
pub(super) struct Page {
    size: i64,
    /// The row after which it begins.
    pub(super) after: Option<Cursor>,
    list: u32,
}

impl Page {
    /// How many rows to read: one more than its size, which says that another
    /// follows.
    pub(super) fn limit(&self) -> i64 {
        self.size + 1
    }

    /// The page of these rows, and the token of the next; empty if there is none.
    pub(super) fn of<T, M: Message>(
        &self,
        rows: Vec<T>,
        cursor: impl Fn(&T) -> Cursor,
        message: impl Fn(T) -> M,
    ) -> (Vec<M>, String) {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        let (mut messages, mut bytes, mut last) = (Vec::new(), 0, None);
        for row in rows {
            let place = cursor(&row);
            let message = message(row);
            bytes += message.encoded_len();
            let is_full =
                messages.len() == size || (bytes > MAX_PAGE_BYTES && !messages.is_empty());
            if is_full {
                let next = last.map(|last| page_token(&last, self.list));
                return (messages, next.unwrap_or_default());
            }
            messages.push(message);
            last = Some(place);
        }
        (messages, String::new())
    }
}

/// What tells one list's pages from another's: what is called, and the request
/// without its page.
fn list_of(right: &Right, request: &impl Message) -> u32 {
    crc32fast::hash(&[right.path.as_bytes(), &request.encode_to_vec()].concat())
}

/// The token of the page after the row at `cursor`, for one request.
fn page_token(cursor: &Cursor, request: u32) -> String {
    let text = format!("{request:08x}.{}.{}", cursor.created_at.as_micros(), cursor.id);
    URL_SAFE_NO_PAD.encode(text)
}

fn parse_page_token(token: &str, request: u32) -> Option<Cursor> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    let (hash, rest) = text.split_once('.')?;
    let (micros, id) = rest.split_once('.')?;
    let same_request = hash == format!("{request:08x}");
    // Of uses it is a verifier and an address.
    let plain_id =
        id.len() <= 128 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-/.:".contains(&b));
    (same_request && plain_id).then_some(())?;
    Some(Cursor { created_at: Timestamp::from_micros(micros.parse().ok()?)?, id: id.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_token_is_good_for_its_request_alone() {
        let cursor =
            Cursor { created_at: Timestamp::from_micros(5).unwrap(), id: "a-1".to_owned() };
        let token = page_token(&cursor, 7);
        assert_eq!(parse_page_token(&token, 7), Some(cursor));
        assert_eq!(parse_page_token(&token, 8), None);
        for token in ["", "x", "AAAA", &URL_SAFE_NO_PAD.encode("00000007.5.' OR 1")] {
            assert_eq!(parse_page_token(token, 7), None, "{token}");
        }
    }

    #[test]
    fn mask_names_what_changes() {
        let mut fields = Fields::default();
        let mask = fields
            .mask(Some(FieldMask { paths: vec!["name".to_owned()] }), &["name", "description"]);
        assert_eq!(mask.pick("name", None, || Some("")), Some(""));
        assert_eq!(mask.pick("description", Some("kept out"), || None), None);
        assert!(fields.check().is_ok());
        fields.mask(Some(FieldMask { paths: vec!["scopes".to_owned()] }), &["name"]);
        assert!(fields.check().is_err());
    }
}
