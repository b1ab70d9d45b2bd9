"""A machine in a few words, and the words of QEMU and of the kernel for it.

  Words: memory, cpus, iommu (none, intel, intel-first, virtio, amd), devices, cxl, pmem, rdma,
  nodes.
  Every PCI device has a port of its own, so that it is alone in its group and can be unplugged.
  What a device is called (edu0, nvme0, ...) is its id for QMP.
"""

import dataclasses
import shlex
from pathlib import Path

from words import LabError

IOMMUS = ("none", "intel", "intel-first", "virtio", "amd")
DEVICES = {  # word: (PCI identity, goes to vfio-pci)
    "edu": ("1234:11e8", True),
    "nvme": ("1b36:0010", True),
    "disk": ("1b36:0010", False),
}
BASE_MODULES = ["virtio_pci", "unix", "ext4"]
CXL_MODULES = ["cxl_acpi", "cxl_pci", "cxl_mem", "cxl_port", "cxl_pmem", "device_dax", "dax_cxl",
               "kmem", "nd_pmem"]
RDMA_MODULES = ["crc32_generic", "dummy", "ib_uverbs", "rdma_ucm", "rdma_rxe"]
VFIO_MODULES = ["vfio", "vfio_iommu_type1", "iommufd", "vfio_pci"]


@dataclasses.dataclass
class Machine:
    memory: str = "1G"
    cpus: int = 2
    iommu: str = "none"
    devices: tuple = ()
    cxl: str = ""       # "", "volatile" or "persistent"
    pmem: bool = False
    pages: int = 0      # huge pages of 2 MiB that the guest reserves
    nodes: int = 1
    rdma: bool = False  # the kernel's soft-RoCE over a network of its own
    share: str = ""
    gdb: bool = False
    arguments: tuple = ()
    append: str = ""

    def check(self, kernel):
        if self.iommu not in IOMMUS:
            raise LabError(f"there is no IOMMU '{self.iommu}': {', '.join(IOMMUS)}")
        for word in self.devices:
            if word.split(":")[0] not in DEVICES:
                raise LabError(f"there is no device '{word}': {', '.join(DEVICES)} (or NAME:FILE "
                               "for a disk that stays); others by --qemu-args")
        if self.cxl not in ("", "volatile", "persistent"):
            raise LabError(f"'{self.cxl}' is no kind of CXL memory: volatile or persistent")
        if self.iommu == "virtio" and kernel.name == "6.1":
            raise LabError("Debian's 6.1 has no driver for a virtio-iommu: --kernel 6.12 or lab")
        if (self.cxl or self.pmem) and kernel.name == "lab":
            raise LabError("the lab kernel has no drivers for --cxl and --pmem: --kernel stock")
        if self.nodes not in (1, 2):
            raise LabError(f"{self.nodes} nodes: the lab joins two at most")
        if self.share and not Path(self.share).is_dir():
            raise LabError(f"'{self.share}' is not a folder that could be shared")

    def modules(self):
        """Kernel modules that the init program loads, where the kernel has them as modules."""
        names = list(BASE_MODULES)
        if self.iommu == "virtio":
            names.append("virtio_iommu")
        if self.bound():
            names += VFIO_MODULES
        if any(word.startswith("disk") for word in self.devices):
            names.append("nvme")
        if self.nodes > 1:
            names.append("virtio_net")
        if self.rdma:
            names += RDMA_MODULES
        if self.share:
            names += ["9pnet_virtio", "9p"]
        if self.cxl:
            names += CXL_MODULES
        if self.pmem:
            names += ["nfit", "virtio_pmem", "nd_pmem", "dax_pmem"]
        return names

    def libraries(self):
        """Files of this system that the guest gets beside its programs: what they load by name."""
        if not self.rdma:
            return []
        providers = sorted(Path("/usr/lib").glob("*/libibverbs/librxe-*.so"))
        if not providers:
            raise LabError("soft-RoCE needs its library: install ibverbs-providers")
        return [str(providers[-1]), "/etc/libibverbs.d/rxe.driver"]

    def bound(self):
        """Identities of the devices that go to vfio-pci."""
        if self.iommu == "none":
            return []
        kinds = [DEVICES[word.split(":")[0]] for word in self.devices]
        return sorted({identity for identity, bound in kinds if bound})

    def command_line(self):
        # A busy host delays the emulated timer, and the kernel would take it for broken.
        words = ["console=ttyS0", "panic=-1", "loglevel=5", "no_timer_check"]
        words += {"intel": ["intel_iommu=on"], "intel-first": ["intel_iommu=on,sm_on"],
                  "virtio": ["vfio_iommu_type1.allow_unsafe_interrupts=1",
                             "iommufd.allow_unsafe_interrupts=1"]}.get(self.iommu, [])
        if self.gdb:
            words.append("nokaslr")
        return " ".join([*words, self.append]).strip()

    def qemu(self, folder, node, major):
        """QEMU's arguments for one node; files of this run are made in folder."""
        self.folder, self.ports = Path(folder), 0
        board = ["q35"]
        words = []
        if self.iommu != "none":
            board.append("kernel-irqchip=split")
            words += ["-device", self.iommu_device(major)]
        for index, word in enumerate(self.devices):
            words += self.device(index, word)
        if self.cxl:
            board.append("cxl=on")
            words += self.cxl_device()
        if self.pmem:
            board.append("nvdimm=on")
            words += self.pmem_devices()
        if self.nodes > 1:
            words += self.network(node)
        if self.share:
            words += ["-virtfs", f"local,path={self.share},mount_tag=share,security_model=none"]
        if self.gdb:
            words += ["-s"]
        slots = ",maxmem=16G,slots=4" if self.cxl or self.pmem else ""
        cpu = "max,-hypervisor" if self.cxl else "max"
        return ["-M", ",".join(board), "-cpu", cpu, "-smp", str(self.cpus),
                "-m", self.memory + slots, *words, *self.arguments]

    def iommu_device(self, major):
        if self.iommu == "intel":
            return "intel-iommu,intremap=on,caching-mode=on"
        if self.iommu == "intel-first":
            return "intel-iommu,intremap=on,caching-mode=on," + (
                "scalable-mode=on,fsts=on" if major >= 11 else "x-scalable-mode=on,x-flts=on")
        if self.iommu == "virtio":
            return "virtio-iommu-pci"
        return "amd-iommu,intremap=on" + (",dma-remap=on" if major >= 10 else "")

    def port(self):
        self.ports += 1
        name = f"port{self.ports}"
        place = f"chassis={self.ports},slot={self.ports}"
        return name, ["-device", f"pcie-root-port,id={name},bus=pcie.0,{place}"]

    def device(self, index, word):
        kind, _, file = word.partition(":")
        name, words = self.port()
        identity = kind + str([other.split(":")[0] for other in self.devices[:index]].count(kind))
        if kind == "edu":
            return [*words, "-device", f"edu,id={identity},bus={name},dma_mask=0x7fffffffffff"]
        path = Path(file) if file else self.folder / f"{identity}.img"
        if not path.exists():
            make_sparse(path, 256 << 20)
        drive = f"drive-{identity}"
        return [*words, "-drive", f"file={path},if=none,id={drive},format=raw,discard=unmap",
                "-device", f"nvme,id={identity},bus={name},serial=lab-{identity},drive={drive}"]

    def memory_file(self, name, size):
        path = self.folder / f"{name}.memory"
        make_sparse(path, size)
        return ["-object", f"memory-backend-file,id={name},share=on,mem-path={path},size={size}"]

    def cxl_device(self):
        words = self.memory_file("cxl-memory", 256 << 20)
        kind = "volatile-memdev=cxl-memory"
        if self.cxl == "persistent":
            words += self.memory_file("cxl-labels", 1 << 20)
            kind = "persistent-memdev=cxl-memory,lsa=cxl-labels"
        return [*words, "-device", "pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl.1",
                "-device", "cxl-rp,port=0,bus=cxl.1,id=cxl-port,chassis=100,slot=100",
                "-device", f"cxl-type3,bus=cxl-port,{kind},id=cxl0,sn=0x1234",
                "-M", "cxl-fmw.0.targets.0=cxl.1,cxl-fmw.0.size=4G"]

    def pmem_devices(self):
        return [*self.memory_file("nvdimm-memory", 128 << 20),
                "-device", "nvdimm,id=nvdimm0,memdev=nvdimm-memory",
                *self.memory_file("pmem-memory", 128 << 20),
                "-device", "virtio-pmem-pci,memdev=pmem-memory,id=pmem0"]

    def network(self, node):
        server = "on" if node == 0 else "off,reconnect-ms=200"
        return ["-netdev", f"stream,id=wire,server={server},addr.type=unix,addr.path=../wire.sock",
                "-device",
                f"virtio-net-pci,netdev=wire,mac=52:54:00:00:00:0{node + 1},host_mtu=4200"]


def from_options(options):
    """The machine that the words of morsel lab run or shell describe."""
    return Machine(
        memory=options.memory, cpus=options.cpus, iommu=options.iommu,
        devices=tuple(word for word in options.device.split(",") if word),
        cxl=options.cxl, pmem=options.pmem,
        rdma=options.rdma,
        pages=options.pages, nodes=getattr(options, "nodes", 1),
        share=options.share and str(Path(options.share).resolve()), gdb=options.gdb,
        arguments=tuple(shlex.split(options.qemu_args)), append=options.append)


def make_sparse(path, size):
    with open(path, "ab") as file:
        file.truncate(size)
