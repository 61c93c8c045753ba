/* fakenvml: a libnvidia-ml.so.1 without a driver, so that the real pynvml can be tested on any machine.
 *
 * Written from the structures that nvidia-ml-py declares; contains nothing of the vendor's header.
 *
 * State is a text file of lines "key value", named by $FAKENVML or fakenvml_config(path). It is read again at each
 * call, so a test changes the GPUs while the process that looks at them runs.
 *
 *   count N                    number of GPUs (1)
 *   init CODE                  what nvmlInit returns
 *   delay_us N                 every call takes so long
 *   delay_us.FUNCTION N        this function does
 *   err.FUNCTION CODE          this function fails, for every GPU
 *   gpu0.FIELD VALUE           a fact of a GPU; fields and their usual values stand beside the functions
 *   gpu0.lost 1                every call about this GPU returns GPU_IS_LOST
 *   gpu0.err.FUNCTION CODE     this function fails for this GPU
 *   gpu0.procs PID:BYTES[:GPU_INSTANCE:COMPUTE_INSTANCE],...     bytes -1: not available
 *   gpu0.links.N.peer BUS_ID   where NVLink N leads
 *   topology.0.1 LEVEL         what lies between two GPUs (50: the sockets)
 *
 * Build: cc -shared -fPIC -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 fakenvml.c
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef unsigned int u32;
typedef unsigned long long u64;
typedef int status;

enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    GPU_IS_LOST = 15,
};

enum { MOST_GPUS = 64, MOST_MIGS = 8 };

typedef struct {
    int gpu;
    int mig; /* -1: the whole GPU */
} device;

static device gpus[MOST_GPUS];
static device migs[MOST_GPUS][MOST_MIGS];
static char config_path[4096];
static int init_count;
static u64 call_count;

void fakenvml_config(const char *path) { snprintf(config_path, sizeof config_path, "%s", path); }

u64 fakenvml_calls(void) { return call_count; }

/* --- the state file --------------------------------------------------------------------------------------- */

static int look_up(const char *key, char *value, size_t size) {
    const char *path = config_path[0] ? config_path : getenv("FAKENVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    size_t length = strlen(key);
    char line[4096];
    int is_found = 0;
    if (!file) return 0;
    while (fgets(line, sizeof line, file)) {
        if (strncmp(line, key, length) || line[length] != ' ') continue;
        char *text = line + length + 1;
        text[strcspn(text, "\r\n")] = 0;
        snprintf(value, size, "%s", text);
        is_found = 1;
    }
    fclose(file);
    return is_found;
}

static u64 number(const char *key, u64 usual) {
    char value[256];
    return look_up(key, value, sizeof value) ? strtoull(value, NULL, 0) : usual;
}

static u64 gpu_number(int gpu, const char *field, u64 usual) {
    char key[256];
    snprintf(key, sizeof key, "gpu%d.%s", gpu, field);
    return number(key, usual);
}

static void gpu_text(int gpu, const char *field, const char *usual, char *out, u32 size) {
    char key[256], value[1024];
    snprintf(key, sizeof key, "gpu%d.%s", gpu, field);
    snprintf(out, size, "%s", look_up(key, value, sizeof value) ? value : usual);
}

/* --- what every call does first --------------------------------------------------------------------------- */

static status enter(const char *function, const device *d, int needs_init) {
    char key[256];
    u64 code;
    call_count++;
    snprintf(key, sizeof key, "delay_us.%s", function);
    usleep((useconds_t)number(key, number("delay_us", 0)));
    if (needs_init && !init_count) return UNINITIALIZED;
    snprintf(key, sizeof key, "err.%s", function);
    if ((code = number(key, 0))) return (status)code;
    if (!d) return SUCCESS;
    if (gpu_number(d->gpu, "lost", 0)) return GPU_IS_LOST;
    snprintf(key, sizeof key, "gpu%d.err.%s", d->gpu, function);
    return (status)number(key, 0);
}

#define ENTER(d)                                      \
    do {                                              \
        status entered = enter(__func__, d, 1);       \
        if (entered) return entered;                  \
    } while (0)

/* A function whose answer is one number of the state file. */
#define NUMBER(function, type, field, usual)          \
    status function(device *d, type *out) {           \
        ENTER(d);                                     \
        *out = (type)gpu_number(d->gpu, field, usual);\
        return SUCCESS;                               \
    }

/* --- library and system ----------------------------------------------------------------------------------- */

status nvmlInitWithFlags(u32 flags) {
    (void)flags;
    status code = enter("nvmlInit", NULL, 0);
    if (!code) code = (status)number("init", 0);
    if (!code) init_count++;
    return code;
}

status nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

status nvmlShutdown(void) {
    if (!init_count) return UNINITIALIZED;
    init_count--;
    return SUCCESS;
}

const char *nvmlErrorString(status code) {
    switch (code) {
        case 0: return "Success";
        case 1: return "Uninitialized";
        case 2: return "Invalid Argument";
        case 3: return "Not Supported";
        case 4: return "Insufficient Permissions";
        case 6: return "Not Found";
        case 9: return "Driver Not Loaded";
        case 12: return "NVML Shared Library Not Found";
        case 13: return "Function Not Found";
        case 15: return "GPU is lost";
        case 18: return "Driver/library version mismatch";
        default: return "Unknown Error";
    }
}

static status system_text(const char *function, const char *key, const char *usual, char *out, u32 size) {
    char value[256];
    status code = enter(function, NULL, 1);
    if (code) return code;
    snprintf(out, size, "%s", look_up(key, value, sizeof value) ? value : usual);
    return SUCCESS;
}

status nvmlSystemGetDriverVersion(char *out, u32 size) {
    return system_text(__func__, "driver", "999.99.01", out, size);
}

status nvmlSystemGetNVMLVersion(char *out, u32 size) { return system_text(__func__, "nvml", "13.999.99", out, size); }

status nvmlSystemGetCudaDriverVersion_v2(int *out) {
    ENTER(NULL);
    *out = (int)number("cuda", 13000);
    return SUCCESS;
}

status nvmlSystemGetCudaDriverVersion(int *out) {
    ENTER(NULL);
    *out = (int)number("cuda", 13000);
    return SUCCESS;
}

/* --- finding devices -------------------------------------------------------------------------------------- */

status nvmlDeviceGetCount_v2(u32 *out) {
    ENTER(NULL);
    *out = (u32)number("count", 1);
    return SUCCESS;
}

status nvmlDeviceGetHandleByIndex_v2(u32 index, device **out) {
    ENTER(NULL);
    if (index >= number("count", 1) || index >= MOST_GPUS) return INVALID_ARGUMENT;
    gpus[index].gpu = (int)index;
    gpus[index].mig = -1;
    *out = &gpus[index];
    return gpu_number((int)index, "lost", 0) ? GPU_IS_LOST : SUCCESS;
}

status nvmlDeviceGetIndex(device *d, u32 *out) {
    ENTER(d);
    *out = (u32)d->gpu;
    return SUCCESS;
}

/* --- what a device is ------------------------------------------------------------------------------------- */

status nvmlDeviceGetName(device *d, char *out, u32 size) {
    ENTER(d);
    gpu_text(d->gpu, "name", "NVIDIA Fake H100 80GB", out, size);
    return SUCCESS;
}

status nvmlDeviceGetUUID(device *d, char *out, u32 size) {
    char usual[96];
    ENTER(d);
    if (d->mig < 0)
        snprintf(usual, sizeof usual, "GPU-fake-%d", d->gpu);
    else
        snprintf(usual, sizeof usual, "MIG-fake-%d-%d", d->gpu, d->mig);
    gpu_text(d->gpu, d->mig < 0 ? "uuid" : "miguuid", usual, out, size);
    return SUCCESS;
}

status nvmlDeviceGetSerial(device *d, char *out, u32 size) {
    ENTER(d);
    gpu_text(d->gpu, "serial", "1650000000042", out, size);
    return SUCCESS;
}

status nvmlDeviceGetVbiosVersion(device *d, char *out, u32 size) {
    ENTER(d);
    gpu_text(d->gpu, "vbios", "96.00.99.00.01", out, size);
    return SUCCESS;
}

status nvmlDeviceGetCudaComputeCapability(device *d, int *major, int *minor) {
    ENTER(d);
    *major = (int)gpu_number(d->gpu, "cc_major", 9);
    *minor = (int)gpu_number(d->gpu, "cc_minor", 0);
    return SUCCESS;
}

typedef struct {
    char bus_id_legacy[16];
    u32 domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
} pci_info;

static void write_bus_id(int gpu, char *out) {
    char usual[32];
    snprintf(usual, sizeof usual, "00000000:%02X:00.0", gpu + 1);
    gpu_text(gpu, "bus_id", usual, out, 32);
}

status nvmlDeviceGetPciInfo_v3(device *d, pci_info *out) {
    ENTER(d);
    memset(out, 0, sizeof *out);
    out->bus = (u32)d->gpu + 1;
    write_bus_id(d->gpu, out->bus_id);
    return SUCCESS;
}

NUMBER(nvmlDeviceGetArchitecture, u32, "arch", 9)
NUMBER(nvmlDeviceGetNumGpuCores, u32, "cores", 16896)
NUMBER(nvmlDeviceGetNumaNodeId, u32, "numa", 0)
NUMBER(nvmlDeviceGetMemoryBusWidth, u32, "mem_bus", 5120)
NUMBER(nvmlDeviceGetPersistenceMode, u32, "persistence", 1)
NUMBER(nvmlDeviceGetComputeMode, u32, "compute_mode", 0)
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, u32, "pcie_gen_max", 5)
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, u32, "pcie_width_max", 16)
NUMBER(nvmlDeviceGetEnforcedPowerLimit, u32, "power_limit_mw", 700000)
NUMBER(nvmlDeviceGetPowerManagementLimit, u32, "power_limit_mw", 700000)
NUMBER(nvmlDeviceGetPowerManagementDefaultLimit, u32, "power_limit_default_mw", 700000)

status nvmlDeviceGetPowerManagementLimitConstraints(device *d, u32 *least, u32 *most) {
    ENTER(d);
    *least = (u32)gpu_number(d->gpu, "power_limit_min_mw", 200000);
    *most = (u32)gpu_number(d->gpu, "power_limit_max_mw", 700000);
    return SUCCESS;
}

status nvmlDeviceGetEccMode(device *d, u32 *now, u32 *next) {
    ENTER(d);
    *now = *next = (u32)gpu_number(d->gpu, "ecc", 1);
    return SUCCESS;
}

status nvmlDeviceGetMaxClockInfo(device *d, int clock, u32 *out) {
    char field[32];
    ENTER(d);
    snprintf(field, sizeof field, "max_clock%d", clock);
    *out = (u32)gpu_number(d->gpu, field, clock == 2 ? 2619 : 1980);
    return SUCCESS;
}

/* --- memory ----------------------------------------------------------------------------------------------- */

typedef struct { u64 total, free, used; } memory_v1;
typedef struct { u32 version; u64 total, reserved, free, used; } memory_v2;

static memory_v1 memory_of(const device *d) {
    u64 total = gpu_number(d->gpu, d->mig < 0 ? "mem_total" : "mig_mem_total", d->mig < 0 ? 80ull << 30 : 10ull << 30);
    u64 used = gpu_number(d->gpu, "mem_used", 3ull << 30);
    return (memory_v1){total, total - used, used};
}

status nvmlDeviceGetMemoryInfo(device *d, memory_v1 *out) {
    ENTER(d);
    *out = memory_of(d);
    return SUCCESS;
}

status nvmlDeviceGetMemoryInfo_v2(device *d, memory_v2 *out) {
    ENTER(d);
    memory_v1 memory = memory_of(d);
    out->total = memory.total;
    out->reserved = gpu_number(d->gpu, "mem_reserved", 0);
    out->free = memory.free;
    out->used = memory.used;
    return SUCCESS;
}

status nvmlDeviceGetBAR1MemoryInfo(device *d, memory_v1 *out) {
    ENTER(d);
    u64 total = gpu_number(d->gpu, "bar1_total", 128ull << 30);
    *out = (memory_v1){total, total, 0};
    return SUCCESS;
}

/* --- links ------------------------------------------------------------------------------------------------ */

static int has_link(const device *d, u32 link) { return link < gpu_number(d->gpu, "nvlinks", 0); }

status nvmlDeviceGetNvLinkState(device *d, u32 link, u32 *out) {
    char field[32];
    ENTER(d);
    if (!has_link(d, link)) return gpu_number(d->gpu, "nvlinks", 0) ? INVALID_ARGUMENT : NOT_SUPPORTED;
    snprintf(field, sizeof field, "links.%u.active", link);
    *out = (u32)gpu_number(d->gpu, field, 1);
    return SUCCESS;
}

status nvmlDeviceGetNvLinkVersion(device *d, u32 link, u32 *out) {
    ENTER(d);
    if (!has_link(d, link)) return NOT_SUPPORTED;
    *out = (u32)gpu_number(d->gpu, "nvlink_version", 4);
    return SUCCESS;
}

status nvmlDeviceGetNvLinkRemotePciInfo_v2(device *d, u32 link, pci_info *out) {
    char field[32];
    ENTER(d);
    if (!has_link(d, link)) return NOT_SUPPORTED;
    memset(out, 0, sizeof *out);
    snprintf(field, sizeof field, "links.%u.peer", link);
    gpu_text(d->gpu, field, "00000000:FF:00.0", out->bus_id, sizeof out->bus_id);
    return SUCCESS;
}

status nvmlDeviceGetTopologyCommonAncestor(device *a, device *b, u32 *out) {
    char key[64];
    ENTER(a);
    snprintf(key, sizeof key, "topology.%d.%d", a->gpu, b->gpu);
    *out = (u32)number(key, 50);
    return SUCCESS;
}

/* --- multi-instance --------------------------------------------------------------------------------------- */

NUMBER(nvmlDeviceGetMaxMigDeviceCount, u32, "mig_count", 0)

status nvmlDeviceGetMigMode(device *d, u32 *now, u32 *next) {
    ENTER(d);
    *now = *next = gpu_number(d->gpu, "mig_count", 0) > 0;
    return SUCCESS;
}

status nvmlDeviceGetMigDeviceHandleByIndex(device *d, u32 index, device **out) {
    char field[32];
    ENTER(d);
    snprintf(field, sizeof field, "mig%u.free", index);
    if (index >= MOST_MIGS || index >= gpu_number(d->gpu, "mig_count", 0) || gpu_number(d->gpu, field, 0))
        return NOT_FOUND;
    migs[d->gpu][index] = (device){d->gpu, (int)index};
    *out = &migs[d->gpu][index];
    return SUCCESS;
}

status nvmlDeviceGetGpuInstanceId(device *d, u32 *out) {
    ENTER(d);
    if (d->mig < 0) return NOT_SUPPORTED;
    *out = (u32)d->mig + 1;
    return SUCCESS;
}

status nvmlDeviceGetComputeInstanceId(device *d, u32 *out) {
    ENTER(d);
    if (d->mig < 0) return NOT_SUPPORTED;
    *out = 0;
    return SUCCESS;
}

/* --- what a device does now ------------------------------------------------------------------------------- */

NUMBER(nvmlDeviceGetPowerUsage, u32, "power_mw", 250000)
NUMBER(nvmlDeviceGetFanSpeed, u32, "fan", 30)
NUMBER(nvmlDeviceGetPerformanceState, u32, "pstate", 0)
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, u32, "pcie_gen", 5)
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, u32, "pcie_width", 16)
NUMBER(nvmlDeviceGetCurrentClocksEventReasons, u64, "throttle", 0)
NUMBER(nvmlDeviceGetCurrentClocksThrottleReasons, u64, "throttle", 0)

status nvmlDeviceGetUtilizationRates(device *d, u32 *out) {
    ENTER(d);
    if (d->mig >= 0) return NOT_SUPPORTED;
    out[0] = (u32)gpu_number(d->gpu, "util", 87);
    out[1] = (u32)gpu_number(d->gpu, "mem_util", 41);
    return SUCCESS;
}

status nvmlDeviceGetTemperature(device *d, int sensor, u32 *out) {
    (void)sensor;
    ENTER(d);
    *out = (u32)gpu_number(d->gpu, "temp", 64);
    return SUCCESS;
}

typedef struct { u32 version; int sensor, temperature; } temperature_v1;

status nvmlDeviceGetTemperatureV(device *d, temperature_v1 *out) {
    ENTER(d);
    out->temperature = (int)gpu_number(d->gpu, "temp", 64);
    return SUCCESS;
}

status nvmlDeviceGetClockInfo(device *d, int clock, u32 *out) {
    char field[32];
    ENTER(d);
    snprintf(field, sizeof field, "clock%d", clock);
    *out = (u32)gpu_number(d->gpu, field, clock == 2 ? 2619 : 1980);
    return SUCCESS;
}

/* Millijoules since some moment: `power_mw` over time, or `energy_mj` where it is set. */
status nvmlDeviceGetTotalEnergyConsumption(device *d, u64 *out) {
    struct timespec now;
    ENTER(d);
    clock_gettime(CLOCK_MONOTONIC, &now);
    double seconds = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
    *out = gpu_number(d->gpu, "energy_mj", (u64)((double)gpu_number(d->gpu, "power_mw", 250000) * seconds));
    return SUCCESS;
}

status nvmlDeviceGetPcieThroughput(device *d, int counter, u32 *out) {
    ENTER(d);
    *out = (u32)gpu_number(d->gpu, counter ? "pcie_rx_kbs" : "pcie_tx_kbs", 1000);
    return SUCCESS;
}

status nvmlDeviceGetTotalEccErrors(device *d, int type, int counter, u64 *out) {
    (void)counter;
    ENTER(d);
    *out = gpu_number(d->gpu, type ? "ecc_uncorrected" : "ecc_corrected", 0);
    return SUCCESS;
}

typedef struct { u32 pid; u64 used; u32 gpu_instance, compute_instance; } process_info;

static status list_processes(const char *function, device *d, u32 *count, process_info *out, const char *field) {
    char text[2048], *next = text;
    u32 found = 0, room = out ? *count : 0;
    status code = enter(function, d, 1);
    if (code) return code;
    gpu_text(d->gpu, field, "", text, sizeof text);
    while (*next) {
        process_info process = {(u32)strtoul(next, &next, 10), (u64)-1, ~0u, ~0u};
        if (*next == ':') process.used = (u64)strtoll(next + 1, &next, 10);
        if (*next == ':') process.gpu_instance = (u32)strtoul(next + 1, &next, 10);
        if (*next == ':') process.compute_instance = (u32)strtoul(next + 1, &next, 10);
        if (found < room) out[found] = process;
        found++;
        if (*next++ != ',') break;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

status nvmlDeviceGetComputeRunningProcesses_v3(device *d, u32 *count, process_info *out) {
    return list_processes(__func__, d, count, out, "procs");
}

status nvmlDeviceGetGraphicsRunningProcesses_v3(device *d, u32 *count, process_info *out) {
    return list_processes(__func__, d, count, out, "gprocs");
}
