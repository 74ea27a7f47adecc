"""Sends one log record, data point and span in each way the OpenTelemetry SDK for Python knows.

Arguments: the ports of gRPC and HTTP. Prints a line for each request: its name and what came of it.
"""

import sys

import grpc
from opentelemetry.exporter.otlp.proto.grpc import _log_exporter as grpc_logs
from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc_metrics
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc_traces
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http import _log_exporter as http_logs
from opentelemetry.exporter.otlp.proto.http import metric_exporter as http_metrics
from opentelemetry.exporter.otlp.proto.http import trace_exporter as http_traces
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk import _logs as logs
from opentelemetry.sdk import metrics, trace
from opentelemetry.sdk._logs import export as log_export
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

RESOURCE = Resource.create({"service.name": "sdk"})


def spans(name):
    kept = InMemorySpanExporter()
    provider = trace.TracerProvider(resource=RESOURCE)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    with provider.get_tracer("test").start_as_current_span(name) as span:
        span.set_attribute("n", 1)
        span.add_event("event")
    return kept.get_finished_spans()


def points(name):
    reader = InMemoryMetricReader()
    provider = metrics.MeterProvider([reader], resource=RESOURCE)
    provider.get_meter("test").create_counter(name).add(7, {"a": "b"})
    return reader.get_metrics_data()


def records(name):
    kept_by = getattr(log_export, "InMemoryLogRecordExporter", None)
    kept = (kept_by or log_export.InMemoryLogExporter)()
    provider = logs.LoggerProvider(resource=RESOURCE)
    provider.add_log_record_processor(log_export.SimpleLogRecordProcessor(kept))
    record = LogRecord(
        timestamp=1_700_000_000_000_000_000,
        severity_number=SeverityNumber.INFO,
        body=name,
        attributes={"a": "b"},
    )
    provider.get_logger("test").emit(record)
    return kept.get_finished_logs()


def main(grpc_port, http_port):
    address = f"http://127.0.0.1:{grpc_port}"
    page = f"http://127.0.0.1:{http_port}/v1/"
    makers = [
        ("logs", records, grpc_logs.OTLPLogExporter, http_logs.OTLPLogExporter),
        ("metrics", points, grpc_metrics.OTLPMetricExporter, http_metrics.OTLPMetricExporter),
        ("traces", spans, grpc_traces.OTLPSpanExporter, http_traces.OTLPSpanExporter),
    ]
    none, gzip = grpc.Compression.NoCompression, grpc.Compression.Gzip
    for signal, make, over_grpc, over_http in makers:
        for word, compression in (("none", none), ("gzip", gzip)):
            exporter = over_grpc(endpoint=address, insecure=True, compression=compression)
            name = f"{signal}-grpc-{word}-end"
            print(name, exporter.export(make(name)).name, flush=True)
        for compression in Compression:
            exporter = over_http(endpoint=page + signal, compression=compression)
            name = f"{signal}-http-{compression.name.lower()}-end"
            print(name, exporter.export(make(name)).name, flush=True)


main(sys.argv[1], sys.argv[2])
