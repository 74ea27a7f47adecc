//! `system`: the host, as the kernel, files of the system and the resolver say it.
//!
//! Values are those of the collector: names of systems and processors as in Go, `os.description` as OpenTelemetry's SDK for Go
//! puts it together, versions and processors as `gopsutil` reads them.

use std::fs;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use tailwater_pdata::{Map, Value};
use tailwater_pipeline::reach::Reach;

use super::detection::{Detected, Detector};

/// What it can find, and whether it does unless told otherwise.
pub(super) const ATTRIBUTES: [(&str, bool); 14] = [
    ("host.name", true),
    ("host.id", false),
    ("host.arch", false),
    ("host.ip", false),
    ("host.mac", false),
    ("host.cpu.vendor.id", false),
    ("host.cpu.family", false),
    ("host.cpu.model.id", false),
    ("host.cpu.model.name", false),
    ("host.cpu.stepping", false),
    ("host.cpu.cache.l2.size", false),
    ("os.type", true),
    ("os.description", false),
    ("os.version", false),
];

const MACHINE_IDS: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];
const OS_RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];
const DEBIAN_VERSION: &str = "/etc/debian_version";
/// `AI_CANONNAME` of `netdb.h` on Linux.
const CANONICAL_NAME: i32 = 2;

/// Where the name of the host comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostnameSource {
    /// The file of hosts, then the resolver, forth and back.
    Dns,
    /// The kernel.
    Os,
    /// The canonical name that the resolver has.
    Cname,
    /// The name of an address of the host.
    Lookup,
}

impl HostnameSource {
    /// All, by name.
    pub const NAMES: [(&'static str, HostnameSource); 4] = [
        ("dns", HostnameSource::Dns),
        ("os", HostnameSource::Os),
        ("cname", HostnameSource::Cname),
        ("lookup", HostnameSource::Lookup),
    ];
}

/// Asks the system.
pub(super) struct System {
    sources: Vec<HostnameSource>,
    attributes: Vec<&'static str>,
}

impl System {
    pub fn new(sources: Vec<HostnameSource>, attributes: Vec<&'static str>) -> System {
        System {
            sources,
            attributes,
        }
    }
}

impl Detector for System {
    fn name(&self) -> &'static str {
        "system"
    }

    /// The resolver of the system waits as long as it likes, so it does that in a thread of its own.
    fn detect(&self) -> Detected<'_> {
        let (sources, attributes) = (self.sources.clone(), self.attributes.clone());
        Box::pin(async move {
            let (say, said) = tokio::sync::oneshot::channel();
            let thread = std::thread::Builder::new().name("detect-system".into());
            thread
                .spawn(move || {
                    let _ = say.send(find(&sources, &attributes));
                })
                .map_err(|e| format!("cannot start a thread: {e}"))?;
            said.await.map_err(|e| e.to_string())?
        })
    }
}

/// Whatever of these is to be found.
fn find(sources: &[HostnameSource], attributes: &[&'static str]) -> Result<Map, String> {
    let mut map = Map::new();
    let cpu = match attributes.iter().any(|name| name.starts_with("host.cpu.")) {
        true => fs::read_to_string("/proc/cpuinfo").map_err(|e| format!("/proc/cpuinfo: {e}"))?,
        false => String::new(),
    };
    let cpu = Cpu::first_of(&cpu);
    for name in attributes {
        let value = match *name {
            "host.name" => Some(host_name(sources)?.into()),
            "host.id" => machine_id(),
            "host.arch" => Some(arch(std::env::consts::ARCH).into()),
            "host.ip" => Some(texts(addresses()?)),
            "host.mac" => Some(texts(hardware_addresses()?)),
            "os.type" => Some("linux".into()),
            "os.version" => os_version(),
            "os.description" => Some(os_description().into()),
            of_cpu => cpu.value(of_cpu),
        };
        if let Some(value) = value {
            map.insert(*name, value);
        }
    }
    Ok(map)
}

fn texts(values: Vec<String>) -> Value {
    Value::List(values.into_iter().map(Value::from).collect())
}

/// The name by the first source that has one.
fn host_name(sources: &[HostnameSource]) -> Result<String, String> {
    let uname = rustix::system::uname();
    let own = uname.nodename().to_string_lossy().into_owned();
    let mut problems = Vec::new();
    for source in sources {
        let found = match source {
            HostnameSource::Os => Ok(own.clone()),
            HostnameSource::Cname => canonical(&own),
            HostnameSource::Lookup => reverse(&own),
            HostnameSource::Dns => {
                let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
                match in_hosts(&hosts, &own) {
                    Some(name) => Ok(name),
                    None => canonical(&own).or_else(|_| reverse(&own)),
                }
            }
        };
        match found {
            Ok(name) if !name.is_empty() => return Ok(name),
            Ok(_) => problems.push("the name is empty".to_owned()),
            Err(problem) => problems.push(problem),
        }
    }
    Err(format!(
        "no source has a name of the host: {}",
        problems.join("; ")
    ))
}

/// The first name of the line that names `host`.
fn in_hosts(hosts: &str, host: &str) -> Option<String> {
    for line in hosts.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let names: Vec<&str> = line.split_whitespace().skip(1).collect();
        if names.iter().any(|name| name.eq_ignore_ascii_case(host)) {
            return names.first().map(|name| (*name).to_owned());
        }
    }
    None
}

fn canonical(host: &str) -> Result<String, String> {
    let hints = dns_lookup::AddrInfoHints {
        flags: CANONICAL_NAME,
        ..Default::default()
    };
    let failed = |e: String| format!("no canonical name of {host:?}: {e}");
    let found = dns_lookup::getaddrinfo(Some(host), None, Some(hints));
    let found = found.map_err(|e| failed(std::io::Error::from(e).to_string()))?;
    let mut names = found.filter_map(|info| info.ok()?.canonname);
    let name = names.next().ok_or_else(|| failed("none is told".into()))?;
    Ok(name.trim_end_matches('.').to_owned())
}

fn reverse(host: &str) -> Result<String, String> {
    let addresses =
        dns_lookup::lookup_host(host).map_err(|e| format!("no address of {host:?}: {e}"))?;
    for address in addresses {
        match dns_lookup::lookup_addr(&address) {
            // Without a name the address itself is given.
            Ok(name) if name.parse::<IpAddr>().is_err() => {
                return Ok(name.trim_end_matches('.').to_owned());
            }
            _ => {}
        }
    }
    Err(format!("no address of {host:?} has a name"))
}

fn machine_id() -> Option<Value> {
    let read = |path: &&str| fs::read_to_string(path).ok();
    let ids = MACHINE_IDS.iter().filter_map(read);
    let mut ids = ids
        .map(|id| id.trim().to_owned())
        .filter(|id| !id.is_empty());
    let id = ids.next();
    if id.is_none() {
        tracing::warn!("host.id is not known: there is no machine-id");
    }
    id.map(Value::from)
}

/// The name Go has for a processor, and OpenTelemetry after it.
fn arch(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "arm" => "arm32",
        "powerpc64" => "ppc64",
        "powerpc" => "ppc32",
        other => other,
    }
}

/// Addresses of interfaces that are up, without loopback.
fn addresses() -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for interface in interfaces()? {
        let address = interface.address.as_ref();
        let four = address
            .and_then(|a| a.as_sockaddr_in())
            .map(|a| IpAddr::from(a.ip()));
        let six = address
            .and_then(|a| a.as_sockaddr_in6())
            .map(|a| IpAddr::from(a.ip()));
        if let Some(ip) = four.or(six).filter(|ip| !ip.is_loopback()) {
            found.push(ip.to_string());
        }
    }
    Ok(found)
}

/// Hardware addresses of interfaces that are up, without loopback, as IEEE writes them.
fn hardware_addresses() -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for interface in interfaces()? {
        let address = interface.address.as_ref();
        let Some(mac) = address.and_then(|a| a.as_link_addr()?.addr()) else {
            continue;
        };
        found.push(mac.map(|byte| format!("{byte:02X}")).join("-"));
    }
    Ok(found)
}

fn interfaces() -> Result<impl Iterator<Item = nix::ifaddrs::InterfaceAddress>, String> {
    let all = getifaddrs().map_err(|e| format!("no interfaces: {e}"))?;
    Ok(all.filter(|i| {
        i.flags.contains(InterfaceFlags::IFF_UP) && !i.flags.contains(InterfaceFlags::IFF_LOOPBACK)
    }))
}

/// The value of a key of `os-release`.
fn of_release(text: &str, key: &str) -> Option<String> {
    let line = text
        .lines()
        .find_map(|l| l.trim().strip_prefix(key)?.strip_prefix('='))?;
    let value = line.trim().trim_matches(['"', '\'']);
    (!value.is_empty()).then(|| value.to_owned())
}

fn release() -> String {
    let read = |path: &&str| fs::read_to_string(path).ok();
    OS_RELEASE.iter().find_map(read).unwrap_or_default()
}

fn os_version() -> Option<Value> {
    let release = release();
    if of_release(&release, "ID").as_deref() == Some("debian")
        && let Ok(version) = fs::read_to_string(DEBIAN_VERSION)
    {
        return Some(version.trim().into());
    }
    of_release(&release, "VERSION_ID").map(Value::from)
}

/// Name and version of the distribution, and what `uname -a` says.
fn os_description() -> String {
    let uname = rustix::system::uname();
    let parts = [
        uname.sysname(),
        uname.nodename(),
        uname.release(),
        uname.version(),
        uname.machine(),
    ];
    let uname = parts
        .map(|part| part.to_string_lossy().into_owned())
        .join(" ");
    match distribution(&release()) {
        Some(distribution) => format!("{distribution} ({uname})"),
        None => uname,
    }
}

fn distribution(release: &str) -> Option<String> {
    let value = |key| of_release(release, key);
    let version = value("VERSION").or_else(|| value("VERSION_ID"));
    match value("NAME").zip(version) {
        Some((name, version)) => Some(format!("{name} {version}")),
        None => value("PRETTY_NAME"),
    }
}

/// The first processor of `/proc/cpuinfo`.
struct Cpu<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Cpu<'a> {
    fn first_of(text: &'a str) -> Cpu<'a> {
        let lines = text.lines().take_while(|line| !line.trim().is_empty());
        let pairs = lines.filter_map(|line| line.split_once(':'));
        Cpu(pairs.map(|(k, v)| (k.trim(), v.trim())).collect())
    }

    fn value(&self, attribute: &str) -> Option<Value> {
        let get = |wanted: &[&str]| {
            let mut found = self.0.iter().filter(|(key, _)| wanted.contains(key));
            let (_, value) = found.next()?;
            (!value.is_empty()).then_some(*value)
        };
        let text = match attribute {
            "host.cpu.vendor.id" => get(&["vendor_id"]),
            "host.cpu.family" => get(&["cpu family", "CPU architecture"]),
            "host.cpu.model.id" => get(&["model"]),
            "host.cpu.model.name" => get(&["model name"]),
            "host.cpu.stepping" => get(&["stepping"]),
            "host.cpu.cache.l2.size" => {
                // In KiB: `512 KB`.
                let size = get(&["cache size"])?.split(' ').next()?;
                return size.parse::<i64>().ok().map(Value::from);
            }
            _ => None,
        };
        text.map(Value::from)
    }
}

/// What it reads that nothing else does.
pub(super) fn reach(reach: &mut Reach) {
    for path in MACHINE_IDS.iter().chain(&OS_RELEASE) {
        reach.reads(*path);
    }
    for path in ["/etc/hosts", DEBIAN_VERSION] {
        reach.reads(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_hosts_gives_its_first_name() {
        let hosts =
            "# box\n127.0.0.1 localhost\n10.0.0.5\tbox.example.org  BOX # my\n10.0.0.6 box\n";
        assert_eq!(in_hosts(hosts, "box").as_deref(), Some("box.example.org"));
        assert_eq!(in_hosts(hosts, "other"), None);
        assert_eq!(in_hosts(hosts, "10.0.0.5"), None);
    }

    #[test]
    fn the_distribution_is_named_as_far_as_it_says() {
        let cases = [
            (
                "NAME=\"Debian GNU/Linux\"\nVERSION=\"12 (x)\"\n",
                Some("Debian GNU/Linux 12 (x)"),
            ),
            (
                "NAME=Alpine\nVERSION_ID=3.20\nPRETTY_NAME='A'\n",
                Some("Alpine 3.20"),
            ),
            (
                "NAME=Arch\nPRETTY_NAME=\"Arch Linux\"\n",
                Some("Arch Linux"),
            ),
            ("", None),
        ];
        for (text, want) in cases {
            assert_eq!(distribution(text).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn the_first_processor_counts() {
        let text = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\n\
                    model name\t: AMD EPYC\nstepping\t: 1\ncache size\t: 1024 KB\n\nprocessor\t: 1\nmodel\t: 99\n";
        let cpu = Cpu::first_of(text);
        let value = |name: &str| cpu.value(name);
        assert_eq!(value("host.cpu.vendor.id"), Some("AuthenticAMD".into()));
        assert_eq!(value("host.cpu.family"), Some("25".into()));
        assert_eq!(value("host.cpu.model.id"), Some("17".into()));
        assert_eq!(value("host.cpu.cache.l2.size"), Some(1024i64.into()));
        assert_eq!(Cpu::first_of("").value("host.cpu.family"), None);
    }

    /// All that there is on this machine can be found, and the name of the kernel is one.
    #[test]
    fn this_host_is_detected() {
        let all: Vec<&str> = ATTRIBUTES.iter().map(|(name, _)| *name).collect();
        let map = find(&[HostnameSource::Os], &all).unwrap();
        let uname = rustix::system::uname();
        let own = uname.nodename().to_string_lossy().into_owned();
        assert_eq!(map.get("host.name"), Some(&own.clone().into()));
        assert_eq!(map.get("os.type"), Some(&"linux".into()));
        let description = map
            .get("os.description")
            .unwrap()
            .as_ref()
            .to_display_string();
        assert!(
            description.contains("Linux") && description.contains(&own),
            "{description}"
        );
        for (name, want) in [("host.ip", '.'), ("host.mac", '-')] {
            let Some(Value::List(values)) = map.get(name) else {
                panic!("{name} is no list");
            };
            for value in values {
                let text = value.as_ref().to_display_string();
                assert!(text.contains(want) || text.contains(':'), "{name}: {text}");
            }
        }
    }
}
