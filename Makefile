# Thin on purpose: ./vjepa sets everything up on first use. ARGS passes options on, as in `make run ARGS=--help`.
.PHONY: run test test-unit test-all test-faults fuzz soak bench bench-check lint api pin release

# Files of tests are spread over JOBS processes. Those that are marked real_time run behind them, one at a time; status 5
# of pytest is that a selection has none of the one kind. One of real time that fails runs once more, in sight: a machine
# that others share can stand still for half a second.
JOBS = 3
PYTEST = --exec python -P -m pytest
SPREAD = -n $(JOBS) --dist loadscope --no-loadscope-reorder
EXTRAS = --with view,torchvision,lerobot,atheris,runtimes

# Where so many processes share the cores, torch is quickest with one thread in each.
test test-unit test-all test-faults: export OMP_NUM_THREADS ?= 1

run:
	./vjepa run $(ARGS)

define both
@./vjepa $(EXTRAS) $(PYTEST) $(SPREAD) -m "not real_time$(1)" $(ARGS); first=$$?; [ $$first != 2 ] || exit 2; \
  ./vjepa $(EXTRAS) $(PYTEST) -m "real_time$(1)" $(ARGS); last=$$?; \
  if [ $$last = 1 ]; then echo "make: once more, those of real time that failed"; \
    ./vjepa $(EXTRAS) $(PYTEST) -m "real_time$(1)" --last-failed --last-failed-no-failures none $(ARGS); last=$$?; fi; \
  case $$first$$last in 00 | 05 | 50) ;; *) exit 1 ;; esac
endef

test:
	$(call both, and not slow)

# These tests seldom wait for another process, so more processes than cores make them slower.
test-unit: JOBS = 2
test-unit:
	./vjepa $(PYTEST) $(SPREAD) -m "not slow and not real_time" ros2_ws/src $(ARGS)

test-all: EXTRAS := $(EXTRAS),ray
test-all:
	$(call both)

test-faults:
	./vjepa --exec python -P -m pytest -m faults --full-faults $(ARGS)

fuzz:
	./vjepa --exec python -m tests.fuzz $(ARGS)

bench:
	./vjepa --exec python -m benchmarks.run $(ARGS)

soak:
	./vjepa --exec python -m benchmarks.run --only soak $(ARGS)

bench-check:
	./vjepa --exec python -m benchmarks.run --check $(ARGS)

lint:
	./vjepa --exec ruff check .
	./vjepa --exec ruff format --check .
	./vjepa --exec mypy $(addprefix -p ,vjepa_interfaces sim_bridge vjepa_perception vjepa_planner vjepa_bags vjepa_training vjepa_bringup vjepa_cli)
	./vjepa --exec hadolint docker/Dockerfile
	./vjepa --exec python -P .ci/prose.py
	./vjepa docs --check

api:
	./vjepa --exec python -P .ci/api.py api

# The digest that the tag of the image below docker/Dockerfile has now, for compose, which reads docker/.env.
BASE = ros:jazzy-ros-base-noble
pin:
	@digest=$$(docker buildx imagetools inspect $(BASE) --format '{{.Manifest.Digest}}') && \
	  if expr "$$digest" : 'sha256:[0-9a-f]\{64\}$$' >/dev/null; then echo "VJEPA_BASE=$(BASE)@$$digest" | tee docker/.env; \
	  else echo "docker gave no digest of $(BASE) but '$$digest'; docker/.env is as it was" >&2; exit 1; fi

release:
	./vjepa --exec python -P .ci/release.py $(VERSION)
