"""The base class of every node here: a lifecycle node whose subclasses write `setup` and never a lifecycle callback.

A subclass declares its parameters as a frozen dataclass and implements `setup`, `start`, `stop` and `teardown`. This
class maps these to lifecycle transitions and logs their errors, which rclpy would swallow. It refuses unknown and
ill-typed parameters, and publishes `/diagnostics` once a second. `run` spins one such node to a clean end.
"""

import contextlib
import dataclasses
import gc
import os
import platform
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.executors import Executor, ExternalShutdownException
from rclpy.experimental import EventsExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from vjepa_interfaces import topics
from vjepa_interfaces.deprecated import PARAMETER, current_names
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.parameters import live_names, read_parameters
from vjepa_interfaces.ros_parameters import (
    AllOrNone,
    declare,
    describe_simulated_time,
    descriptor_of,
    is_unchanged,
    unknown_parameters,
)
from vjepa_interfaces.ros_subscriptions import OVERRIDES, OVERRIDING, MatchedSubscription, overrides_read, qos_profile

END_S = 2.0
"""The longest life of a process after a signal: Ctrl-C must end a whole stack within three seconds."""
FREE_S = 3.0
"""How much longer it may take on a busy machine while it frees memory: incomplete shared memory would stop others."""
STEADY = Clock(clock_type=ClockType.STEADY_TIME)
"""The clock of every timer, watchdog and deadline: ROS time stops exactly when something is wrong."""

SPIN_TIMEOUT_S = 1.0
"""The longest wait for an event: without a timeout, the events executor of rclpy 7.1 occupies a whole core."""

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


def diagnostics_of(node: Node, level: bytes, message: str, values: dict[str, Any]) -> DiagnosticArray:
    """Return a message for `/diagnostics`, stamped now.

    Args:
        node: the node that reports.
        level: `OK`, `WARN` or `ERROR`.
        message: the status in a few words.
        values: further values by name; floats are shown with three digits.
    """
    status = DiagnosticStatus(
        level=level, name=node.get_fully_qualified_name(), message=message, hardware_id=platform.node()
    )
    status.values = [KeyValue(key=key, value=_text(value)) for key, value in values.items()]
    array = DiagnosticArray(status=[status])
    array.header.stamp = node.get_clock().now().to_msg()
    return array


class Polled(ReentrantCallbackGroup):
    """Subscriptions that an executor ignores, for a node that takes their messages by itself.

    The executor also ignores their events, because waiting messages would wake it without end. The publisher reports
    incompatible QoS too. The events executor does not respect groups, so such a node runs in a
    `SingleThreadedExecutor`.
    """

    def can_execute(self, _: Any) -> bool:
        """Return False."""
        return False


class ManagedNode(LifecycleNode):
    """A lifecycle node with parameters from a dataclass, logged transitions and diagnostics.

    Class attributes a subclass sets:
        Parameters: a frozen dataclass; its fields, types and defaults are the node's ROS parameters. Those that are
            marked `LIVE` may be set while the node is configured; the others are refused then.
        option_prefixes: names `NAME` whose parameters `NAME.OPTION` are accepted unchecked; plug-ins check them.
            They may be set at any time; see `apply_live_options`.

    Attributes:
        parameters: the instance of `Parameters` read at *configure*.
        live_parameters: names of the parameters that are marked `LIVE`.
        misfits: a text for each publisher whose messages cannot arrive, at the last diagnostics.
    """

    Parameters: ClassVar[type]
    option_prefixes: tuple[str, ...] = ()

    def __init__(self, name: str):
        super().__init__(name, start_parameter_services=False, enable_logger_service=True)
        self.parameters: Any = None
        self.live_parameters = live_names(self.Parameters)
        self.last_error = ""
        self._active = False
        self._preloading: threading.Thread | None = None
        describe_simulated_time(self)
        self._outputs: list[Any] = []
        self._matched: list[MatchedSubscription] = []
        self.misfits: list[str] = []
        for field in dataclasses.fields(self.Parameters):
            note = "May be set while the node runs." if field.name in self.live_parameters else "Read at configure."
            declare(self, field.name, field.default, descriptor_of(self.Parameters, field.name, note))
        self._parameter_overrides = current_names(PARAMETER, self._parameter_overrides)
        for name in self._parameter_overrides:
            if name.split(".")[0] in self.option_prefixes:
                self.declare_parameter(name, None, ParameterDescriptor(dynamic_typing=True))
        self._refuse_unknown_parameters()
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)
        self._parameter_service = AllOrNone(self, self.live_parameters)
        self._diagnostics = self.create_publisher(
            DiagnosticArray, topics.DIAGNOSTICS.name, qos_profile(topics.DIAGNOSTICS)
        )
        self.create_timer(1.0, self.publish_diagnostics, clock=STEADY)

    def declare_options(self, prefix: str, config_class: type) -> None:
        """Declare the options of a plug-in as `prefix.OPTION`, except those that are declared already."""
        for field in dataclasses.fields(config_class):
            name = f"{prefix}.{field.name}"
            descriptor = descriptor_of(config_class, field.name)
            if self.has_parameter(name):
                self.set_descriptor(name, descriptor)
            elif field.init:
                default = None if field.default is dataclasses.MISSING else field.default
                declare(self, name, default, descriptor)

    # Methods for a subclass to implement.

    def preload(self) -> None:
        """Import slow modules that `setup` needs, in a thread, while the node waits to be configured.

        Parameters can be read here. An error is ignored: `setup` meets it again and reports it.
        """

    def setup(self) -> None:
        """Load, allocate and warm up from `self.parameters`. Raise VjepaError for an error that a user can fix."""

    def start(self) -> None:
        """Start the work; publishers are enabled when this returns."""

    def stop(self) -> None:
        """End the work; publishers are still enabled, so that a last zero torque can be sent."""

    def teardown(self) -> None:
        """Free everything else that `setup` created; this is also called after a `setup` that failed half way.

        The base class destroys the endpoints of `publisher` and `subscribe` afterwards.
        """

    def diagnose(self) -> tuple[bytes, str, dict[str, Any]]:
        """Return level (OK, WARN or ERROR), a message and named values for `/diagnostics`."""
        return OK, "", {}

    def check_live_parameter(self, name: str, value: Any) -> None:
        """Refuse a new `value` of a live parameter by raising VjepaError, and change nothing.

        Other parameters of the same request may still be refused, and then none of them is set.
        """

    def apply_live_parameter(self, name: str, value: Any) -> None:
        """Act on a live parameter that was set; `check_live_parameter` has accepted its `value`."""
        raise NotImplementedError(name)

    def check_live_options(self, prefix: str, options: dict[str, Any]) -> None:
        """Refuse the complete new `options` of the plug-in `prefix` by raising VjepaError."""

    def apply_live_options(self, prefix: str, options: dict[str, Any]) -> None:
        """Act on the complete `options` of the plug-in `prefix`, after some of them were set.

        Without an implementation in the subclass, they take effect at the next *configure*.
        """

    def options(self, prefix: str) -> dict[str, Any]:
        """Return the parameters `prefix.OPTION` by option name."""
        found: Any = self.get_parameters_by_prefix(prefix)
        return {name: parameter.value for name, parameter in found.items() if parameter.value is not None}

    # The implementation of this class.

    def begin_preloading(self) -> None:
        """Call `preload` in a thread."""

        def preload() -> None:
            with contextlib.suppress(Exception):
                self.preload()

        self._preloading = threading.Thread(target=preload, name="preload", daemon=True)
        self._preloading.start()

    def end_preloading(self) -> None:
        """Wait for `preload`: two threads must not import the same module."""
        if self._preloading is not None:
            self._preloading.join()
            self._preloading = None

    @property
    def active(self) -> bool:
        """Whether the node is in the lifecycle state *active*."""
        return self._active

    def publisher(self, topic: topics.Topic) -> Any:
        """Return a lifecycle publisher of a `topic`: it publishes only while the node is active."""
        with overrides_read(self):
            output = self.create_lifecycle_publisher(
                topic.message_class, topic.name, qos_profile(topic), qos_overriding_options=OVERRIDING
            )
        self._outputs.append(output)
        return output

    def subscribe(
        self, topic: topics.Topic, callback: Callable[[Any], None], depth: int | None = None, **options: Any
    ) -> MatchedSubscription:
        """Subscribe to a `topic`; `callback(message)` or `callback(message, info)` as in rclpy.

        Diagnostics name publishers whose messages cannot arrive.
        """
        matched = MatchedSubscription(self, topic, callback, depth, **options)
        self._matched.append(matched)
        return matched

    def unsubscribe(self, matched: MatchedSubscription) -> None:
        """Undo `subscribe`."""
        self._matched.remove(matched)
        matched.destroy()

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        """Read the parameters and call `setup`."""

        def configure() -> None:
            self.end_preloading()
            fields = dataclasses.fields(self.Parameters)
            values = {field.name: self.get_parameter(field.name).value for field in fields}
            # An empty list in a parameter file has no type to ROS, which leaves such a parameter without a value.
            empty = {f.name: () for f in fields if isinstance(f.default, tuple) and values[f.name] is None}
            self.parameters = read_parameters(self.Parameters, values | empty)
            self.setup()

        result = self._transition("configure", configure)
        if result != TransitionCallbackReturn.SUCCESS:
            self._transition("cleanup after a failed configure", self._release)
            return result
        # Walking all that torch and transformers made would stop the node for tens of milliseconds at a time.
        gc.collect()
        gc.freeze()
        return super().on_configure(state)

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        """Enable publishing and call `start`."""
        super().on_activate(state)
        result = self._transition("activate", self.start)
        for name in self._parameter_overrides:
            if name.startswith(f"{OVERRIDES}.") and not self.has_parameter(name):
                self.get_logger().warning(f"{name} is of no topic of this node, and has no effect")
        self._active = result == TransitionCallbackReturn.SUCCESS
        if not self._active:
            super().on_deactivate(state)
        return result

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        """Call `stop`, then disable publishing."""
        self._active = False
        result = self._transition("deactivate", self.stop)
        super().on_deactivate(state)
        return result

    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        """Call `teardown`."""
        return self._transition("cleanup", self._release)

    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        """Stop if active, then tear down."""
        if self._active:
            self.on_deactivate(state)
        return self._transition("shutdown", self._release)

    def on_error(self, state: Any) -> TransitionCallbackReturn:
        """Stop and tear down after a transition raised; the node is then unconfigured and can be tried again."""
        if self._active:
            self.on_deactivate(state)
        return self._transition("cleanup after an error", self._release)

    def publish_diagnostics(self) -> None:
        """Publish this node's status on `/diagnostics`."""
        values: dict[str, Any] = {}
        if self.last_error:
            level, message = ERROR, self.last_error
        elif self.parameters is None:
            level, message = OK, "not configured"
        else:
            self.misfits = [misfit for matched in self._matched for misfit in matched.match()]
            level, message, values = self.diagnose()
            if self.misfits:
                values["incompatible_publishers"] = "; ".join(self.misfits)
                unsaid = [misfit for misfit in self.misfits if misfit not in message]
                level, message = max(level, WARN), "; ".join([*([] if level == OK else [message]), *unsaid])
        self._diagnostics.publish(diagnostics_of(self, level, message, values))

    def rivals_on(self, topic_name: str) -> str:
        """Return a text that a topic has more publishers than the expected one, or nothing."""
        publishers = self.count_publishers(topic_name)
        return f"{publishers} publishers on {topic_name}; expected one" if publishers > 1 else ""

    def destroy_node(self) -> None:
        """Destroy the node with its participant, which rclpy 7.1 keeps for the state machine that it never destroys."""
        self._state_machine.destroy_when_not_in_use()
        super().destroy_node()

    def _release(self) -> None:
        gc.unfreeze()
        try:
            self.teardown()
        finally:
            for matched in [*self._matched]:
                self.unsubscribe(matched)
            for output in self._outputs:
                self.destroy_lifecycle_publisher(output)
            self._outputs.clear()
            self.parameters = None

    def _transition(self, name: str, action: Callable[[], None]) -> TransitionCallbackReturn:
        started = time.monotonic()
        try:
            action()
        except VjepaError as error:
            self.last_error = f"{name} refused: {error}"
            self.get_logger().error(self.last_error)
            self.publish_diagnostics()
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            self.last_error = f"{name} failed: {type(error).__name__}: {error}"
            self.get_logger().error(f"{self.last_error}\n{traceback.format_exc()}")
            self.publish_diagnostics()
            return TransitionCallbackReturn.ERROR
        if not name.startswith("cleanup after"):
            self.last_error = ""
        self.get_logger().debug(f"{name} took {time.monotonic() - started:.2f} s")
        return TransitionCallbackReturn.SUCCESS

    def _refuse_unknown_parameters(self) -> None:
        unknown, valid = unknown_parameters(self, self.Parameters)
        if unknown:
            raise VjepaError(f"{self.get_name()} has no parameter {unknown}; valid are: {valid}")

    def _check_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        """Accept or refuse a request as a whole. Nothing is changed here, because other checks may still refuse it."""
        try:
            for parameter in parameters:
                self._check_parameter(parameter)
            for prefix in self.option_prefixes:
                changed = {p.name.partition(".")[2]: p.value for p in parameters if p.name.startswith(f"{prefix}.")}
                if changed:
                    self.check_live_options(prefix, self.options(prefix) | changed)
        except VjepaError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _check_parameter(self, parameter: Parameter) -> None:
        name = parameter.name
        names = {field.name for field in dataclasses.fields(self.Parameters)}
        if name not in names | {"use_sim_time"}:
            return
        if parameter.type_ == Parameter.Type.NOT_SET:
            raise VjepaError(f"'{name}' cannot be deleted; set it to the value that it should have")
        if self.parameters is None or is_unchanged(self, parameter, self.live_parameters):
            return
        if name not in self.live_parameters:
            raise VjepaError(
                f"'{name}' is read at configure; clean up {self.get_name()} first to change it"
                f" (settable while running: {', '.join(sorted(self.live_parameters)) or 'none'})"
            )
        self.check_live_parameter(name, self._typed(parameter))

    def _typed(self, parameter: Parameter) -> Any:
        """Return a parameter's value in the type of the dataclass, or raise VjepaError if it is of another type."""
        return getattr(read_parameters(self.Parameters, {parameter.name: parameter.value}), parameter.name)

    def _apply_parameters(self, parameters: list[Parameter]) -> None:
        """Act on a request that every check has accepted."""
        if self.parameters is None:
            return
        live = {p.name: self._typed(p) for p in parameters if p.name in self.live_parameters}
        self.parameters = dataclasses.replace(self.parameters, **live)
        for name, value in live.items():
            self.apply_live_parameter(name, value)
        for prefix in self.option_prefixes:
            if any(parameter.name.startswith(f"{prefix}.") for parameter in parameters):
                self.apply_live_options(prefix, self.options(prefix))


def _text(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def hold_signals() -> socket.socket:
    """Write SIGINT and SIGTERM into the returned socket, for `on_signal`; they have no other effect.

    Threads that libraries start during their import (OpenBLAS does) receive signals too. So it is not enough to block
    signals in the main thread. The interpreter's own handler runs in the thread that is hit, and writes the number into
    the socket. The parent process may have blocked SIGINT, so that imports do not end in a traceback. Such a SIGINT
    arrives here.
    """
    signals, write_end = socket.socketpair()
    write_end.setblocking(False)
    signal.set_wakeup_fd(write_end.detach(), warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    return signals


def leave(status: int) -> NoReturn:
    """End this process with an exit status that no further signal can change. Call it after the node is deleted.

    An interpreter that ends by itself takes seconds on a busy machine, because it frees all memory of torch. It may
    also crash in the middle of an import, and it ends the daemon thread of `on_signal`. Nodes and executors refer to
    each other, so they are garbage-collected first. Their participant then leaves the domain and frees its shared
    memory. Otherwise other processes may wait for this one without end.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    gc.collect()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # The reader of the stream may have ended.
            stream.flush()
    os._exit(status)


def on_signal(signals: socket.socket, executor: Executor) -> threading.Event:
    """Return an event that the `executor` sets, between two callbacks, after `hold_signals` received a signal.

    The process ends `END_S` after the signal whatever it is doing, such as an import or a clip on a slow machine. While
    it frees its memory, it may take `FREE_S` longer.
    """
    stopping = threading.Event()

    def wait_for_signal() -> None:
        signals.recv(1)
        executor.create_task(stopping.set)
        time.sleep(END_S)
        if stopping.is_set():
            time.sleep(FREE_S)
        os._exit(0)

    threading.Thread(target=wait_for_signal, daemon=True).start()
    return stopping


def ignore_lost_responses() -> None:
    """Suppress rclpy's warning of a response whose client has ended, such as a stack manager after Ctrl-C.

    The node's log and diagnostics contain the content of the response too, such as a refusal.
    """
    warnings.filterwarnings("ignore", "failed to send response", RuntimeWarning)


def run(node_class: Callable[[], ManagedNode], executor_type: Callable[[], Executor] = EventsExecutor) -> NoReturn:
    """Spin one managed node until SIGINT or SIGTERM, deactivate and clean it up, and end this process.

    A separate thread waits for signals, so that the node still has a context in which to send its last zero torque. The
    events executor takes half the time of a wait set from message to callback, and runs callbacks in the order of
    arrival. But that of rclpy 7.1 cannot pass message info to a callback. An exception from a callback is logged and
    ends the process with status 1, so that the stack restarts it.

    Args:
        node_class: creates the node.
        executor_type: creates the executor; a node with `Polled` subscriptions needs a `SingleThreadedExecutor`.
    """
    signals = hold_signals()
    ignore_lost_responses()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    status = 0
    node = None
    executor = executor_type()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.getsignal(number))  # the events executor takes them over; take them back
    stopping = on_signal(signals, executor)
    try:
        node = node_class()
        node.begin_preloading()
        executor.add_node(node)
        while not stopping.is_set():
            try:
                executor.spin_once(SPIN_TIMEOUT_S)
            except rclpy_implementation.RCLError as error:
                node.get_logger().error(f"refused by ROS: {error}")
    except VjepaError as error:
        print(error, file=sys.stderr)
        status = 2
    except ExternalShutdownException:
        pass
    except Exception:
        traceback.print_exc()
        status = 1
    finally:
        if node is not None:
            with contextlib.suppress(rclpy_implementation.RCLError):
                node.trigger_shutdown()
            node.destroy_node()
        executor.shutdown()
        rclpy.try_shutdown()
    del node, executor
    leave(status)
