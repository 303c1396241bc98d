//! What Azure answers, in one line that says what to do, and under the kind of error that it is.
//!
//! The client knows the status of single requests alone. It calls every failure of a listing or a deletion a generic one, so
//! a refusal there looks like a busy service. And a missing container looks like a missing object.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use object_store::azure::MicrosoftAzure;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// Which container of which account.
#[derive(Clone, Debug)]
pub struct Account {
    /// The storage account.
    pub account: String,
    /// The container.
    pub container: String,
}

/// The client of a container.
#[derive(Debug)]
pub struct Explained {
    client: Arc<MicrosoftAzure>,
    about: Arc<Account>,
    /// Azurite knows no start of a listing, and gives all of it.
    filter_listings: bool,
}

impl Explained {
    /// Explains what a client answers. Listings are filtered here where the service does not do it.
    pub fn new(client: MicrosoftAzure, about: Account, filter_listings: bool) -> Explained {
        Explained { client: Arc::new(client), about: Arc::new(about), filter_listings }
    }

    fn of<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| self.about.explain(error))
    }

    fn each<T: Send + 'static>(&self, stream: BoxStream<'static, Result<T>>) -> BoxStream<'static, Result<T>> {
        let about = Arc::clone(&self.about);
        stream.map(move |item| item.map_err(|error| about.explain(error))).boxed()
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "container {} of {}", self.about.container, self.about.account)
    }
}

/// What was answered, in words.
#[derive(Debug)]
struct Words {
    text: String,
    final_answer: bool,
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Words {}

fn found(error: &Error) -> Option<&Words> {
    std::error::Error::source(error)?.downcast_ref::<Words>()
}

/// Whether asking again is of no use before somebody has changed something.
pub fn is_final(error: &Error) -> bool {
    found(error).is_some_and(|words| words.final_answer)
}

/// An error in one line.
pub fn words(error: &Error) -> String {
    found(error).map_or_else(|| one_line(&without_signature(&error.to_string())), |words| words.text.clone())
}

/// A shared access signature stands in URLs, and those in some messages.
pub fn without_signature(text: &str) -> String {
    let mut parts = text.split("sig=");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(['&', ' ', ')', '"', '\n']).unwrap_or(part.len());
        clean.push_str("sig=****");
        clean.push_str(&part[end..]);
    }
    clean
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What stands between the tags of that name.
fn tagged<'a>(text: &'a str, tag: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{tag}>"))?;
    rest.split_once(&format!("</{tag}>")).map(|(value, _)| value)
}

/// The statuses that mean a refusal, as they stand in messages of the client.
const REFUSALS: [&str; 2] = ["403 Forbidden", "401 Unauthorized"];

/// The container, not the object, is why a request fails.
const OF_CONTAINER: [&str; 3] = ["ContainerNotFound", "ContainerBeingDeleted", "ContainerDisabled"];

/// Failures to get a token: the client says so, and what it was told.
const NO_TOKEN: [&str; 5] = [
    "Error performing token request",
    "Error getting token response body",
    "Error reading federated token file",
    "'az account get-access-token' command failed",
    "Failed to parse azure cli response",
];

impl Account {
    fn explain(&self, error: Error) -> Error {
        let text = without_signature(&error.to_string());
        let code = tagged(&text, "Code").unwrap_or_default();
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if says(&NO_TOKEN) {
            return self.no_token(&text);
        }
        if OF_CONTAINER.contains(&code) {
            // Never as an object that is missing, or that exists: nothing follows for the object.
            let words = self.words(code, &text, code == OF_CONTAINER[0]);
            return Error::Generic { store: "Azure", source: words.into() };
        }
        let refused = says(&REFUSALS) && matches!(error, Error::Generic { .. });
        match error {
            Error::PermissionDenied { path, .. } => {
                Error::PermissionDenied { path, source: self.words(code, &text, true).into() }
            }
            Error::Unauthenticated { path, .. } => {
                Error::Unauthenticated { path, source: self.words(code, &text, true).into() }
            }
            _ if refused => {
                Error::PermissionDenied { path: self.container.clone(), source: self.words(code, &text, true).into() }
            }
            Error::Generic { store, source } if text.contains("sig=") => {
                // Whatever else it holds would hold the signature as well.
                let text = without_signature(&source.to_string());
                let words = Words { text: one_line(&text), final_answer: false };
                Error::Generic { store, source: words.into() }
            }
            other => other,
        }
    }

    /// Nobody gave us a token. At the start that is final, refused or unanswered; later only a refusal ends a call, and silence
    /// is tried again.
    fn no_token(&self, text: &str) -> Error {
        let answered = ["400 Bad Request", "401 Unauthorized", "403 Forbidden", "404 Not Found"];
        let refused = answered.iter().any(|status| text.contains(status)) || !text.contains(NO_TOKEN[0]);
        let text = format!(
            "no token for the storage account {}: {}; check azure.credential and what belongs to it",
            self.account,
            one_line(text)
        );
        // At the start even silence is final: then a way that does not exist here was taken.
        let words = Words { text, final_answer: true };
        if refused {
            Error::Unauthenticated { path: self.container.clone(), source: words.into() }
        } else {
            Error::Generic { store: "Azure", source: words.into() }
        }
    }

    fn words(&self, code: &str, text: &str, final_answer: bool) -> Words {
        let Account { account, container } = self;
        let message = tagged(text, "Message").and_then(|message| message.lines().next()).map(str::trim);
        let hint = match code {
            "ContainerNotFound" => format!(
                "there is no container {container} in the storage account {account}; create it: az storage container \
                 create --account-name {account} --name {container}"
            ),
            "AuthenticationFailed" | "InvalidAuthenticationInfo" => format!(
                "the storage account {account} does not accept the key or token; check azure.credential, what belongs \
                 to it, and the clock of this machine"
            ),
            "AuthorizationPermissionMismatch" | "InsufficientAccountPermissions" => format!(
                "who we are has no right to read and write the container {container} of {account}; assign the role \
                 Storage Blob Data Contributor"
            ),
            "AuthorizationFailure" => format!(
                "the storage account {account} refuses us; check azure.credential and what belongs to it, the role \
                 Storage Blob Data Contributor, and the firewall of the account"
            ),
            "AuthorizationResourceTypeMismatch" | "AuthorizationServiceMismatch" | "AuthorizationProtocolMismatch" => {
                format!("the shared access signature does not cover the container {container} of {account}")
            }
            "KeyBasedAuthenticationNotPermitted" => {
                format!("the storage account {account} takes no keys; use Microsoft Entra ID, see azure.credential")
            }
            _ => message.map_or_else(
                || format!("container {container} of {account}: {}", one_line(text)),
                |message| format!("container {container} of {account}: {message}"),
            ),
        };
        let status = REFUSALS.into_iter().find(|status| text.contains(status)).unwrap_or_default();
        let named = [status, code].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        let text = if named.is_empty() { hint } else { format!("{hint} ({named})") };
        Words { text, final_answer }
    }
}

/// An upload in parts, explained.
#[derive(Debug)]
struct Upload {
    inner: Box<dyn MultipartUpload>,
    about: Arc<Account>,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (part, about) = (self.inner.put_part(data), Arc::clone(&self.about));
        Box::pin(async move { part.await.map_err(|error| about.explain(error)) })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.inner.complete().await.map_err(|error| self.about.explain(error))
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

#[async_trait]
impl ObjectStore for Explained {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.of(self.client.put_opts(at, payload, options).await)
    }

    async fn put_multipart_opts(&self, at: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.of(self.client.put_multipart_opts(at, options).await)?;
        Ok(Box::new(Upload { inner, about: Arc::clone(&self.about) }))
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.of(self.client.get_opts(at, options).await)
    }

    async fn get_ranges(&self, at: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.of(self.client.get_ranges(at, ranges).await)
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.each(self.client.delete_stream(paths))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.each(self.client.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        if !self.filter_listings {
            return self.each(self.client.list_with_offset(prefix, offset));
        }
        let offset = offset.clone();
        let after = move |item: &Result<ObjectMeta>| {
            std::future::ready(item.as_ref().map_or(true, |object| object.location > offset))
        };
        self.each(self.client.list(prefix)).filter(after).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.of(self.client.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.of(self.client.copy_opts(from, to, options).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account { account: "acme".to_owned(), container: "lake".to_owned() }
    }

    fn generic(text: &str) -> Error {
        Error::Generic { store: "MicrosoftAzure", source: text.into() }
    }

    #[test]
    fn refusals_are_told_from_what_may_pass() {
        let refused = |text: &str| {
            let error = account().explain(generic(text));
            (matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. }), is_final(&error))
        };
        assert_eq!(refused("list: status code: 403 Forbidden: <Error><Code>AuthenticationFailed</Code>"), (true, true));
        assert_eq!(refused("Error performing token request: status 401 Unauthorized: AADSTS7000215"), (true, true));
        // Nobody answered: at the start that is an answer, later it may pass.
        assert_eq!(refused("Error performing token request: error sending request"), (false, true));
        assert_eq!(refused("status code: 503 Service Unavailable: <Code>ServerBusy</Code>"), (false, false));
    }

    #[test]
    fn a_container_that_is_gone_says_nothing_of_an_object() {
        for (code, last) in [("ContainerNotFound", true), ("ContainerBeingDeleted", false)] {
            let source = || format!("<Error><Code>{code}</Code><Message>m</Message></Error>").into();
            for error in [
                Error::NotFound { path: "p".to_owned(), source: source() },
                Error::AlreadyExists { path: "p".to_owned(), source: source() },
            ] {
                let error = account().explain(error);
                assert!(matches!(error, Error::Generic { .. }) && is_final(&error) == last, "{error:?}");
            }
        }
        let missing = Error::NotFound { path: "p".to_owned(), source: "<Code>BlobNotFound</Code>".into() };
        assert!(matches!(account().explain(missing), Error::NotFound { .. }));
    }

    #[test]
    fn signatures_are_left_out_of_every_message() {
        let url = "http://acme/lake?sv=1&sig=aa%2Fbb&se=2 failed (http://acme/lake?sig=cc)";
        assert_eq!(without_signature(url), "http://acme/lake?sv=1&sig=****&se=2 failed (http://acme/lake?sig=****)");
        for text in [format!("error at {url}"), format!("{url}: 403 Forbidden")] {
            let error = account().explain(generic(&text));
            let shown = format!("{error} {error:?} {}", words(&error));
            assert!(!shown.contains("aa%2Fbb") && !shown.contains("cc"), "{shown}");
        }
    }

    #[test]
    fn what_is_said_is_one_line() {
        let text = "403 Forbidden\n<Error>\n<Code>Odd</Code><Message>First.\nRequestId:1\nTime:2</Message></Error>";
        let error = account().explain(generic(text));
        assert_eq!(words(&error), "container lake of acme: First. (403 Forbidden Odd)");
    }
}
