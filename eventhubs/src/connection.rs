//! Connection strings, read to the letter.

use url::Url;

use crate::error::{Error, ErrorKind};
use crate::secret::Secret;

/// Port of AMQP without TLS, which a local broker has.
const PLAIN_PORT: u16 = 5672;

/// Port of AMQP with TLS.
const TLS_PORT: u16 = 5671;

const FORM: &str = "expected Endpoint=sb://NAMESPACE.servicebus.windows.net/;SharedAccessKeyName=NAME;\
                    SharedAccessKey=KEY, with ;EntityPath=HUB or the name of the event hub beside it";

/// A connection string of a namespace or an event hub.
///
/// The client takes the host of the endpoint alone; the port and the word `UseDevelopmentEmulator`, which stands for a
/// broker without TLS, are read here.
///
/// ```
/// use tidemark_eventhubs::connection::ConnectionString;
///
/// let text = "Endpoint=sb://localhost:9000;SharedAccessKeyName=a;SharedAccessKey=b=;UseDevelopmentEmulator=true";
/// let string = ConnectionString::parse(text)?;
/// assert_eq!(string.custom_endpoint().as_deref(), Some("amqp://localhost:9000"));
/// assert_eq!(string.hub(None), None);
/// assert_eq!(string.hub(Some("payments")).as_deref(), Some("payments"));
/// # Ok::<(), tidemark_eventhubs::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ConnectionString {
    text: Secret,
    host: String,
    port: Option<u16>,
    entity: Option<String>,
    emulator: bool,
}

impl ConnectionString {
    /// Reads a connection string. White space around it, such as the end of a line, is no part of it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Usage`] with what is missing or wrong. No value of the string is repeated, since one that is pasted
    /// into the wrong place may be a key.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |why: String| Error::new(ErrorKind::Usage, "the connection string", format!("{why}; {FORM}"));
        let text = text.trim();
        let (mut endpoint, mut entity, mut emulator) = (None, None, false);
        let (mut name, mut key, mut signature) = (false, false, false);
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let Some((word, value)) = part.split_once('=') else {
                return Err(wrong("a part of it has no = sign".to_owned()));
            };
            let word = word.trim();
            let filled = !value.trim().is_empty();
            match word.to_ascii_lowercase().as_str() {
                "endpoint" => endpoint = Some(value.trim()),
                "entitypath" if filled => entity = Some(value.trim().to_owned()),
                "usedevelopmentemulator" => emulator = value.trim().eq_ignore_ascii_case("true"),
                "sharedaccesskeyname" => name = filled,
                "sharedaccesskey" => key = filled,
                "sharedaccesssignature" => signature = filled,
                _ => {}
            }
        }
        let endpoint = endpoint.ok_or_else(|| wrong("it has no Endpoint".to_owned()))?;
        if !(signature || name && key) {
            let missing = if name { "SharedAccessKey" } else { "SharedAccessKeyName" };
            return Err(wrong(format!("it has no {missing}, and no SharedAccessSignature")));
        }
        let url = Url::parse(endpoint).map_err(|error| wrong(format!("its Endpoint is no URL ({error})")))?;
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| wrong("its Endpoint has no host".to_owned()))?.to_owned();
        Ok(ConnectionString { text: Secret::new(text), host, port: url.port(), entity, emulator })
    }

    /// The whole text, for the client.
    pub(crate) fn expose(&self) -> &str {
        self.text.expose()
    }

    /// The host, which for Event Hubs is the namespace.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The event hub: the one that is named beside the string, else the one in it.
    pub fn hub(&self, beside: Option<&str>) -> Option<String> {
        beside.map(str::to_owned).or_else(|| self.entity.clone())
    }

    /// The event hub that the string is bound to.
    pub fn entity(&self) -> Option<&str> {
        self.entity.as_deref()
    }

    /// Whether it names a local broker that speaks without TLS.
    pub fn is_emulator(&self) -> bool {
        self.emulator
    }

    /// Where to connect to, if that is not the usual port of the host.
    pub fn custom_endpoint(&self) -> Option<String> {
        let (scheme, usual) = if self.emulator { ("amqp", PLAIN_PORT) } else { ("amqps", TLS_PORT) };
        match self.port {
            None if !self.emulator => None,
            port => Some(format!("{scheme}://{}:{}", self.host, port.unwrap_or(usual))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const KEY: &str = "SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=c2VjcmV0c2VjcmV0=";

    fn parse(text: &str) -> ConnectionString {
        ConnectionString::parse(text).unwrap()
    }

    #[test]
    fn the_portal_s_string_goes_to_the_usual_port() {
        let string = parse(&format!("Endpoint=sb://ns.servicebus.windows.net/;{KEY};EntityPath=payments\n"));
        assert_eq!((string.host(), string.custom_endpoint()), ("ns.servicebus.windows.net", None));
        assert_eq!(string.hub(None).as_deref(), Some("payments"));
        assert!(!string.is_emulator());
        assert!(!string.expose().ends_with('\n'));
    }

    #[test]
    fn port_and_emulator_are_honoured() {
        let of = |text: &str| parse(text).custom_endpoint();
        let emulator = format!("Endpoint=sb://localhost;{KEY};UseDevelopmentEmulator=true;");
        assert_eq!(of(&emulator).as_deref(), Some("amqp://localhost:5672"));
        let port = format!("Endpoint=sb://127.0.0.1:9999;{KEY};UseDevelopmentEmulator=TRUE");
        assert_eq!(of(&port).as_deref(), Some("amqp://127.0.0.1:9999"));
        let tls = format!("endpoint=sb://localhost:9999;{KEY};usedevelopmentemulator=false");
        assert_eq!(of(&tls).as_deref(), Some("amqps://localhost:9999"));
    }

    #[test]
    fn what_is_wrong_is_said_and_no_value_repeated() {
        for (text, why) in [
            ("", "no Endpoint"),
            ("hunter2", "no = sign"),
            ("SharedAccessKeyName=a;SharedAccessKey=hunter2", "no Endpoint"),
            ("Endpoint=sb://h;SharedAccessKeyName=a", "no SharedAccessKey,"),
            ("Endpoint=sb://h;SharedAccessKey=hunter2", "no SharedAccessKeyName"),
            ("Endpoint=hunter2;SharedAccessKeyName=a;SharedAccessKey=b", "no URL"),
        ] {
            let error = ConnectionString::parse(text).unwrap_err();
            let said = error.to_string();
            assert!(said.contains(why) && !said.contains("hunter2"), "{text}: {said}");
            assert_eq!(error.kind(), ErrorKind::Usage);
        }
        assert!(!format!("{:?}", parse(&format!("Endpoint=sb://h;{KEY}"))).contains("c2Vj"));
        parse("Endpoint=sb://h;SharedAccessSignature=SharedAccessSignature sr=a&sig=b&se=1&skn=c");
    }
}
