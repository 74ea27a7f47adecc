// Sends one log record, data point and span in each way the OpenTelemetry SDK for Node.js knows.
//
// Arguments: the ports of gRPC and HTTP. Prints a line for each request: its name and what came of it.

"use strict";

const { resourceFromAttributes } = require("@opentelemetry/resources");
const trace = require("@opentelemetry/sdk-trace-base");
const metrics = require("@opentelemetry/sdk-metrics");
const logs = require("@opentelemetry/sdk-logs");

const resource = resourceFromAttributes({ "service.name": "sdk" });
const [grpcPort, httpPort] = process.argv.slice(2);

function spans(name) {
  const kept = new trace.InMemorySpanExporter();
  const spanProcessors = [new trace.SimpleSpanProcessor(kept)];
  const provider = new trace.BasicTracerProvider({ resource, spanProcessors });
  const span = provider.getTracer("test").startSpan(name);
  span.setAttribute("n", 1);
  span.addEvent("event");
  span.end();
  return kept.getFinishedSpans();
}

class Reader extends metrics.MetricReader {
  async onForceFlush() {}
  async onShutdown() {}
}

async function points(name) {
  const reader = new Reader();
  const provider = new metrics.MeterProvider({ resource, readers: [reader] });
  provider.getMeter("test").createCounter(name).add(7, { a: "b" });
  return (await reader.collect()).resourceMetrics;
}

function records(name) {
  const kept = new logs.InMemoryLogRecordExporter();
  const processors = [new logs.SimpleLogRecordProcessor({ exporter: kept })];
  const provider = new logs.LoggerProvider({ resource, processors });
  provider.getLogger("test").emit({
    timestamp: 1700000000000,
    severityNumber: 9,
    body: name,
    attributes: { a: "b" },
  });
  return kept.getFinishedLogRecords();
}

function send(exporter, what) {
  return new Promise((resolve) => {
    exporter.export(what, (result) => {
      resolve(result.code === 0 ? "SUCCESS" : `${result.code} ${result.error}`);
    });
  });
}

const SIGNALS = [
  ["logs", "logs", "OTLPLogExporter", records],
  ["metrics", "metrics", "OTLPMetricExporter", points],
  ["traces", "trace", "OTLPTraceExporter", spans],
];

async function main() {
  for (const [signal, part, kind, make] of SIGNALS) {
    for (const form of ["grpc", "http", "proto"]) {
      const Exporter = require(`@opentelemetry/exporter-${part}-otlp-${form}`)[kind];
      for (const compression of ["none", "gzip"]) {
        const grpc = `http://127.0.0.1:${grpcPort}`;
        const http = `http://127.0.0.1:${httpPort}/v1/${signal}`;
        const url = form === "grpc" ? grpc : http;
        const exporter = new Exporter({ url, compression });
        const name = `${signal}-${form}-${compression}-end`;
        console.log(name, await send(exporter, await make(name)));
        await exporter.shutdown();
      }
    }
  }
}

main();
