"""Repositories made of what is installed on this machine; none is downloaded."""

def _installed(context):
    python = context.os.environ.get("PYTHON_BIN_PATH") or context.which("python3")
    if not python:
        fail("There is no python3 on the PATH. Name one: bazel test --repo_env=PYTHON_BIN_PATH=…")
    context.path(Label("//custom_ops:kernels/all.h"))  # both are read anew when this one changes
    program = context.path(Label("//custom_ops:build.py"))
    result = context.execute([python, program, "--describe"], timeout = 600)
    if result.return_code != 0:
        fail("{} {} --describe failed:\n{}".format(python, program, result.stderr))
    facts = json.decode(result.stdout.strip().split("\n")[-1])
    context.symlink(facts["FFI_HEADERS"], "include")
    context.file("python.sh", "#!/bin/sh\nexec '{}' \"$@\"\n".format(facts["PYTHON"]), True)
    context.file("facts.bzl", "".join(["%s = %r\n" % item for item in facts.items()]))
    context.file("BUILD", """package(default_visibility = ["//visibility:public"])

exports_files(["python.sh"])

cc_library(
    name = "ffi",
    hdrs = glob(["include/xla/**/*.h"]),
    includes = ["include"],
)
""")

installed = repository_rule(
    implementation = _installed,
    doc = "The FFI headers of the oldest supported jaxlib, and the flags of build.py.",
    environ = ["PYTHON_BIN_PATH"],
    local = True,
)

_RULES = {
    "cc": [
        "cc_binary",
        "cc_import",
        "cc_library",
        "cc_proto_library",
        "cc_test",
        "cc_toolchain",
        "cc_toolchain_suite",
        "fdo_prefetch_hints",
        "fdo_profile",
        "objc_import",
        "objc_library",
    ],
    "java": [
        "java_binary",
        "java_import",
        "java_library",
        "java_package_configuration",
        "java_plugin",
        "java_proto_library",
        "java_runtime",
        "java_test",
        "java_toolchain",
    ],
}

def _rules_of_bazel_itself(context):
    language = context.attr.language
    lines = ["{0} = native.{0}\n".format(name) for name in _RULES[language]]
    context.file("BUILD", "")
    context.file(language + "/BUILD", "")
    context.file(language + "/defs.bzl", "".join(lines))

rules_of_bazel_itself = repository_rule(
    implementation = _rules_of_bazel_itself,
    attrs = {"language": attr.string()},
    doc = "Stands for rules that Bazel 4 would download, although it has them itself.",
)

def _nothing(context):
    context.file("BUILD", """package(default_visibility = ["//visibility:public"])

[filegroup(name = name) for name in ["Main", "coverage_report_generator", "lcov_merger"]]
""")

nothing = repository_rule(
    implementation = _nothing,
    doc = "Stands for the tools that measure coverage, which no test asks for.",
)
