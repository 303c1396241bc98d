//! Who may do what: shared access signatures, and what they cover.

use crate::hub::now;
use crate::options::BrokerOptions;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// Type of a token that is a shared access signature.
const SAS: &str = "servicebus.windows.net:sastoken";
/// Type of a token of Microsoft Entra ID.
const JWT: &str = "jwt";

/// What a connection may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Path of the resource; everything below it is covered.
    path: Vec<String>,
    /// Milliseconds since 1970; none is for ever.
    expires: Option<i64>,
}

/// What all grants of a connection cover.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    grants: Vec<Grant>,
}

impl Grants {
    pub(crate) fn add(&mut self, grant: Grant) {
        self.grants.retain(|known| known.path != grant.path);
        self.grants.push(grant);
    }

    /// Everything, for ever.
    pub(crate) fn add_all(&mut self) {
        self.add(Grant { path: Vec::new(), expires: None });
    }

    /// Whether the address may be used now.
    pub(crate) fn cover(&self, address: &str) -> bool {
        let (path, now) = (path(address), now());
        self.live(now).any(|grant| is_prefix(&grant.path, &path))
    }

    /// Whether anything of the hub may be used now.
    pub(crate) fn touch(&self, hub: &str) -> bool {
        let (path, now) = (path(hub), now());
        self.live(now).any(|grant| is_prefix(&grant.path, &path) || is_prefix(&path, &grant.path))
    }

    fn live(&self, now: i64) -> impl Iterator<Item = &Grant> {
        self.grants.iter().filter(move |grant| grant.expires.is_none_or(|expires| now < expires))
    }

    /// When the next grant expires.
    pub(crate) fn next_expiry(&self) -> Option<i64> {
        let now = now();
        self.live(now).filter_map(|grant| grant.expires).min()
    }
}

/// The parts of an address, without scheme and host.
pub(crate) fn path(address: &str) -> Vec<String> {
    let path = match address.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
        None => address,
    };
    path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn is_prefix(prefix: &[String], path: &[String]) -> bool {
    prefix.len() <= path.len() && prefix.iter().zip(path).all(|(a, b)| a.eq_ignore_ascii_case(b))
}

/// Whether name and key are the broker's.
pub(crate) fn is_key(options: &BrokerOptions, name: &str, key: &str) -> bool {
    // Comparing codes instead of keys takes the same time wherever they differ.
    let code = |key: &[u8]| Hmac::<Sha256>::new_from_slice(key).map(|code| code.chain_update(b"key").finalize());
    name == options.key_name && matches!((code(key.as_bytes()), code(options.key.as_bytes())), (Ok(a), Ok(b)) if a == b)
}

/// What a token grants, or why it grants nothing, in the words of Event Hubs.
pub(crate) fn verify(options: &BrokerOptions, kind: &str, audience: &str, token: &str) -> Result<Grant, String> {
    match kind {
        SAS => signature(options, audience, token),
        JWT if options.accept_jwt => Ok(Grant { path: path(audience), expires: None }),
        _ => Err(format!("InvalidToken: The token type '{kind}' is not accepted by this broker.")),
    }
}

fn signature(options: &BrokerOptions, audience: &str, token: &str) -> Result<Grant, String> {
    let malformed = || "MalformedToken: The shared access signature is malformed.".to_owned();
    let fields = token.strip_prefix("SharedAccessSignature ").ok_or_else(malformed)?;
    let field = |name: &str| fields.split('&').find_map(|field| field.split_once('=').filter(|(key, _)| *key == name));
    let value = |name| field(name).map(|(_, value)| value).ok_or_else(malformed);
    let (resource, expiry) = (value("sr")?, value("se")?);
    let signature = STANDARD.decode(unescape(value("sig")?)).map_err(|_| malformed())?;
    let invalid = || "InvalidSignature: The token has an invalid signature.".to_owned();
    if unescape(value("skn")?) != options.key_name {
        return Err(invalid());
    }
    let mut code = Hmac::<Sha256>::new_from_slice(options.key.as_bytes()).map_err(|_| invalid())?;
    code.update(resource.as_bytes());
    code.update(b"\n");
    code.update(expiry.as_bytes());
    code.verify_slice(&signature).map_err(|_| invalid())?;
    let expires = expiry.parse::<i64>().ok().and_then(|seconds| seconds.checked_mul(1000)).ok_or_else(malformed)?;
    if expires <= now() {
        return Err(format!("ExpiredToken: The token is expired since {expiry} seconds after 1970."));
    }
    let granted = path(&unescape(resource));
    if !is_prefix(&granted, &path(audience)) {
        return Err(format!("InvalidAudience: The token does not cover the audience '{audience}'."));
    }
    Ok(Grant { path: granted, expires: Some(expires) })
}

/// Undoes percent-encoding.
fn unescape(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, after @ ..] = rest {
        let escaped = (*first == b'%').then(|| after.first_chunk::<2>()).flatten();
        let escaped = escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(resource: &str, expiry: i64, name: &str, key: &str) -> String {
        let mut code = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
        code.update(format!("{resource}\n{expiry}").as_bytes());
        let signature = STANDARD.encode(code.finalize().into_bytes());
        let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={name}")
    }

    fn judge(resource: &str, expiry: i64, name: &str, key: &str, audience: &str) -> Result<Grant, String> {
        let options = BrokerOptions { key_name: "root".into(), key: "secret".into(), ..BrokerOptions::default() };
        verify(&options, SAS, audience, &token(resource, expiry, name, key))
    }

    #[test]
    fn only_a_live_signature_of_the_right_key_over_the_entity_grants() {
        let later = now() / 1000 + 60;
        let hub = "amqps://127.0.0.1/hub/ConsumerGroups/g/Partitions/0";
        assert!(judge("amqps%3a%2f%2fhost%2fHub", later, "root", "secret", hub).is_ok());
        assert!(judge("sb%3A%2F%2Fhost%2F", later, "root", "secret", hub).is_ok());
        let reason = |judged: Result<Grant, String>| judged.unwrap_err().split_once(':').unwrap().0.to_owned();
        assert_eq!(reason(judge("sb%3a%2f%2fh%2fhub", later, "root", "wrong", hub)), "InvalidSignature");
        assert_eq!(reason(judge("sb%3a%2f%2fh%2fhub", later, "other", "secret", hub)), "InvalidSignature");
        assert_eq!(reason(judge("sb%3a%2f%2fh%2fhub", later - 120, "root", "secret", hub)), "ExpiredToken");
        assert_eq!(reason(judge("sb%3a%2f%2fh%2fother", later, "root", "secret", hub)), "InvalidAudience");
    }

    #[test]
    fn a_changed_resource_or_expiry_breaks_the_signature() {
        let options = BrokerOptions { key_name: "root".into(), key: "secret".into(), ..BrokerOptions::default() };
        let later = now() / 1000 + 60;
        let good = token("sb%3a%2f%2fh%2fhub", later, "root", "secret");
        for bad in [good.replace("2fhub", "2f"), good.replace(&later.to_string(), &(later + 1).to_string())] {
            assert!(verify(&options, SAS, "sb://h/hub", &bad).unwrap_err().starts_with("InvalidSignature"));
        }
        for broken in ["", "SharedAccessSignature ", "SharedAccessSignature sr=a&sig=%%%&se=x&skn=root", "Bearer x"] {
            assert!(verify(&options, SAS, "sb://h/hub", broken).unwrap_err().starts_with("MalformedToken"));
        }
    }

    #[test]
    fn tokens_of_entra_are_accepted_only_where_options_say_so() {
        let mut options = BrokerOptions::default();
        assert!(verify(&options, JWT, "sb://h/hub", "x.y.z").is_err());
        options.accept_jwt = true;
        assert!(verify(&options, JWT, "sb://h/hub", "x.y.z").is_ok());
    }

    #[test]
    fn grants_cover_what_is_below_them_until_they_expire() {
        let mut grants = Grants::default();
        assert!(!grants.touch("hub"));
        grants.add(Grant { path: path("sb://h/hub/ConsumerGroups/g"), expires: Some(now() + 60_000) });
        assert!(grants.cover("amqps://x/hub/consumergroups/G/Partitions/1") && !grants.cover("hub/Partitions/1"));
        assert!(grants.touch("hub") && grants.next_expiry().is_some());
        grants.add(Grant { path: path("sb://h/hub/ConsumerGroups/g"), expires: Some(now() - 1) });
        assert!(!grants.cover("hub/ConsumerGroups/g/Partitions/1") && grants.next_expiry().is_none());
        grants.add_all();
        assert!(grants.cover("anything"));
    }
}
