# bash completion for the morsel command.
#
# _morsel_options is the whole knowledge: the options of each command, as --help lists them (a test
# compares the two). Names of morsels are asked from the pool that the line names.

declare -gA _morsel_options=(
	["pool create"]="--size --max --budget --low --high --kind --mode --group --node --no-huge --pool --help"
	["pool info"]="--pool --json --bytes --help"
	["pool check"]="--pool --json --help"
	["pool destroy"]="--force --pool --help"
	["pool grow"]="--node --pool --help"
	["pool budget"]="--low --high --pool --help"
	["pool compact"]="--pool --json --huge --moves --every --help"
	["pool reap"]="--pool --json --help"
	["create"]="--lazy --evictable --contiguous --scattered --pages --pool --help"
	["list"]="--null --pool --json --bytes --help"
	["info"]="--tensors --pool --json --bytes --help"
	["map"]="--offset --length --pool --json --bytes --help"
	["import"]="--name --align --replace --contiguous --evictable --pages --pool --json --bytes --help"
	["export"]="--pool --help"
	["dump"]="--full --range --incremental --snapshot --in-flight --pool --json --bytes --help"
	["restore"]="--lazy --range --more --base --in-flight --pool --json --help"
	["rm"]="--force --pool --help"
	["rename"]="--pool --help"
	["mv"]="--pool --help"
	["publish"]="--pool --help"
	["clone"]="--pool --help"
	["snapshot"]="--pool --help"
	["resize"]="--pool --help"
	["seal"]="--pool --help"
	["evict"]="--offset --length --pool --help"
	["prefetch"]="--offset --length --pool --help"
	["advise"]="--offset --length --pool --help"
	["swap add"]="--size --priority --compression --plain --overwrite --sparse --pool --help"
	["swap remove"]="--lose --pool --help"
	["swap on"]="--pool --help"
	["swap list"]="--pool --json --bytes --help"
	["stat"]="--openmetrics --pool --json --bytes --help"
	["top"]="--delay --count --batch --pool --bytes --help"
	["who"]="--pool --json --help"
	["pager"]="--serve --pool --help"
	["gpu list"]="--json --help"
	["gpu info"]="--json --bytes --help"
	["iommu list"]="--json --help"
	["iommu info"]="--kind --json --bytes --help"
	["iommu map"]="--kind --iova --granule --pool --json --bytes --help"
	["iommu bind"]="--help"
	["iommu unbind"]="--help"
	["nvme list"]="--json --help"
	["nvme info"]="--json --bytes --help"
	["nvme read"]="--namespace --position --size --help"
	["nvme write"]="--namespace --position --size --help"
	["nvme import"]="--namespace --position --size --raw --pool --json --bytes --help"
	["nvme export"]="--namespace --position --size --raw --pool --json --bytes --help"
	["nvme bench"]="--namespace --block --depth --pattern --pointers --time --count --polled --write --overwrite --json --help"
	["doctor"]="--json --help"
	["lab run"]="--kernel --modules --iommu --device --memory --cpus --pages --cxl --pmem --rdma --share --file --append --qemu-binary --qemu-args --accel --gdb --log --nodes --user --timeout --powercut --help"
	["lab shell"]="--kernel --modules --iommu --device --memory --cpus --pages --cxl --pmem --rdma --share --file --append --qemu-binary --qemu-args --accel --gdb --log --help"
	["lab fetch"]="--help"
	["lab kernel"]="--jobs --help"
	["version"]="--json --help"
	["help"]="--help"
)

# Prints the words of the commands that begin with $1 ("", or a group's, "pool "), without it.
_morsel_commands()
{
	local name

	for name in "${!_morsel_options[@]}"; do
		[[ $name == "$1"* ]] || continue
		name=${name#"$1"}
		printf '%s\n' "${name%% *}"
	done
}

# Prints what --kind can be for command $1.
_morsel_kinds()
{
	case $1 in
	iommu*) echo "auto type1 iommufd" ;;
	*) echo "auto tmpfs hugetlb file" ;;
	esac
}

# Sets COMPREPLY to the names of the morsels in pool $1 that begin with $2, quoted for the shell.
_morsel_names()
{
	local name names=()

	mapfile -d '' names < <(morsel list --null --pool "$1" 2>/dev/null)
	for name in "${names[@]}"; do
		[[ $name == "$2"* ]] && COMPREPLY+=("$(printf '%q' "$name")")
	done
}

_morsel()
{
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
	local command=${COMP_WORDS[1]} first=2 pool= i

	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		mapfile -t COMPREPLY < <(compgen -W "$(_morsel_commands "")" -- "$current")
		return
	fi
	if [[ $command == help && $COMP_CWORD -eq 2 ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$(_morsel_commands "")" -- "$current")
		return
	fi
	if [[ $command == gpu || $command == iommu || $command == lab || $command == nvme || $command == pool || $command == swap ]]; then
		if ((COMP_CWORD == 2)); then
			mapfile -t COMPREPLY < <(compgen -W "$(_morsel_commands "$command ") --help" \
				-- "$current")
			return
		fi
		command="$command ${COMP_WORDS[2]}"
		first=3
	fi
	case $previous in
	--pages)
		mapfile -t COMPREPLY < <(compgen -W "mixed 4k 2m 1g" -- "$current")
		return
		;;
	--iommu)
		mapfile -t COMPREPLY < <(compgen -W "none intel intel-first virtio amd" -- "$current")
		return
		;;
	--kernel)
		mapfile -t COMPREPLY < <(compgen -W "stock 6.1 6.12 lab" -f -- "$current")
		return
		;;
	--device)
		mapfile -t COMPREPLY < <(compgen -W "edu nvme disk edu,nvme" -- "$current")
		return
		;;
	--accel)
		mapfile -t COMPREPLY < <(compgen -W "kvm tcg" -- "$current")
		return
		;;
	--cxl)
		mapfile -t COMPREPLY < <(compgen -W "volatile persistent" -- "$current")
		return
		;;
	--compression)
		mapfile -t COMPREPLY < <(compgen -W "auto lz4 zstd" -- "$current")
		return
		;;
	--pattern)
		mapfile -t COMPREPLY < <(compgen -W "both sequential random" -- "$current")
		return
		;;
	--pointers)
		mapfile -t COMPREPLY < <(compgen -W "both prp sgl" -- "$current")
		return
		;;
	--kind)
		mapfile -t COMPREPLY < <(compgen -W "$(_morsel_kinds "$command")" -- "$current")
		return
		;;
	--group)
		mapfile -t COMPREPLY < <(compgen -g -- "$current")
		return
		;;
	--pool | -p | --incremental | --base)
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		return
		;;
	--size | --max | --budget | --low | --high | --mode | --node | --offset | --length | --align | --range | --delay | \
		--count | --in-flight | --namespace | --position | --block | --iova | --granule | --depth | --time | \
		--name | -n)
		return
		;;
	esac
	if [[ $current == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "${_morsel_options[$command]}" -- "$current")
		return
	fi
	for ((i = first; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		--pool | -p)
			pool=${COMP_WORDS[i + 1]}
			i=$((i + 1))
			;;
		-*) ;;
		*)
			[[ -z $pool && -z ${MORSEL_POOL-} ]] && pool=${COMP_WORDS[i]}
			;;
		esac
	done
	[[ -z $pool ]] && pool=${MORSEL_POOL-}
	case $command in
	info | map | export | "nvme export" | dump | who | rm | rename | mv | publish | clone | snapshot | resize | seal | evict | prefetch | advise)
		[[ -n $pool ]] && _morsel_names "${pool/#\~/$HOME}" "$current"
		;;
	esac
	if [[ ${#COMPREPLY[@]} -eq 0 && $command != help && $command != doctor ]]; then
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		compopt -o filenames 2>/dev/null
	fi
}

complete -F _morsel morsel
