//! The types of components that the collector's distributions have, to tell a type that this agent
//! lacks from a misspelt one.
//!
//! The names are those of the modules of opentelemetry-collector and -contrib up to v0.159.
//! Underscores are left out, because many types were renamed by adding them.

use crate::component_id::ComponentKind;

const RECEIVERS: &str = "activedirectoryds aerospike apache apachespark awscloudwatch \
    awscontainerinsightreceiver awsecscontainermetrics awsfirehose awslambda awss3 awsxray azureblob \
    azureeventhub azurefunctions azuremonitor bigip carbon chrony ciscoos cloudflare cloudfoundry \
    collectd couchdb datadog dockerstats elasticsearch envoyals expvar faro filelog filestats \
    flinkmetrics fluentforward github gitlab googlecloudmonitoring googlecloudpubsub \
    googlecloudpubsubpush googlecloudspanner haproxy hostmetrics httpcheck icmpcheck iis influxdb \
    jaeger jmx journald k8scluster k8sevents k8slog k8sobjects kafka kafkametrics kubeletstats \
    libhoney loki macosunifiedlogging memcached mongodb mongodbatlas mysql namedpipe netflow \
    nginx nop nsxt ntp opencensus oracledb osquery otelarrow otlp otlpjsonfile podmanstats \
    postgresql pprof prometheus prometheusremotewrite prometheussimple pulsar purefa purefb \
    rabbitmq receivercreator redfish redis riak saphana signalfx skywalking smartagent snmp snowflake \
    solace splunkenterprise splunkhec sqlquery sqlserver sshcheck statsd stef syslog systemd \
    tcpcheck tcplog tlscheck udplog vcenter vcr wavefront webhookevent windowseventlog \
    windowsperfcounters windowsservice yanggrpc zipkin zookeeper";

const PROCESSORS: &str = "attributes batch coralogix cumulativetodelta datadogsemantics deltatocumulative \
    deltatorate dnslookup experimentalmetricsgeneration filter geoip groupbyattrs groupbytrace \
    interval isolationforest k8sattributes logdedup logstransform lookup memorylimiter \
    metricsgeneration metricstarttime metricstransform probabilisticsampler queuebatch redaction \
    remotetap resource resourcedetection schema span spanpruning starttimemetric \
    stdinotel sumologic tailsampling transform unroll";

const EXPORTERS: &str = "alertmanager alibabacloudlogservice awscloudwatchlogs awsemf awskinesis awss3 awsxray \
    azureblob azuredataexplorer azuremonitor bmchelix carbon cassandra clickhouse coralogix datadog \
    dataset debug doris elasticsearch faro file googlecloud googlecloudpubsub googlecloudstorage \
    googlemanagedprometheus honeycombmarker influxdb instana jaeger kafka loadbalancing logging \
    logicmonitor logzio loki mezmo nop opencensus opensearch otelarrow otlp otlpgrpc otlphttp \
    prometheus prometheusremotewrite pulsar rabbitmq sapm sematext sentry signalfx splunkhec stef \
    sumologic syslog tencentcloudlogservice tinybird topiclogs yandexcloud zipkin";

const CONNECTORS: &str = "count datadog exceptions failover forward grafanacloud metricsaslogs \
    otlpjson roundrobin routing servicegraph signaltometrics slowsql spanmetrics sum";

const EXTENSIONS: &str = "ack alibabacloudlogserviceencoding asapclient avrologencoding awscloudwatchmetricstreamsencoding \
    awslogsencoding awsproxy azureauth azureencoding ballast basicauth bearertokenauth cfgardenobserver \
    cgroupruntime datadog dbstorage dockerobserver ecsobserver ecstaskobserver filestorage googleclientauth \
    googlecloudlogentryencoding headerssetter healthcheck healthcheckv2 hostobserver httpforwarder \
    jaegerencoding jaegerremotesampling jsonlogencoding k8sleaderelector k8sobserver kafkatopicsobserver \
    memorylimiter oauth2client oidc opamp otlpencoding pprof redisstorage remotetap sigv4auth \
    skywalkingencoding solarwindsapmsettings sumologic textencoding zipkinencoding zpages";

/// Whether the collector has a type of this kind, in any of its spellings.
pub fn is_collector_type(kind: ComponentKind, name: &str) -> bool {
    let names = match kind {
        ComponentKind::Receiver => RECEIVERS,
        ComponentKind::Processor => PROCESSORS,
        ComponentKind::Exporter => EXPORTERS,
        ComponentKind::Connector => CONNECTORS,
        ComponentKind::Extension => EXTENSIONS,
    };
    let bare: String = name.chars().filter(|c| *c != '_').collect();
    names.split_ascii_whitespace().any(|known| known == bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_known_in_both_spellings_and_by_kind() {
        use ComponentKind::{Connector, Exporter, Extension, Processor, Receiver};
        for (kind, name, expect) in [
            (Receiver, "hostmetrics", true),
            (Receiver, "host_metrics", true),
            (Receiver, "tail_sampling", false),
            (Processor, "tail_sampling", true),
            (Exporter, "otlp_http", true),
            (Exporter, "lokii", false),
            (Connector, "span_metrics", true),
            (Extension, "zpages", true),
            (Extension, "", false),
        ] {
            assert_eq!(is_collector_type(kind, name), expect, "{kind} {name}");
        }
    }
}
