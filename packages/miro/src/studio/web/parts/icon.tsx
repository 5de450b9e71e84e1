/** Icons, drawn with lines. */
const PATHS = {
  close: "M6 6l12 12M18 6L6 18",
  heart: "M12 20s-7.5-4.6-7.5-10.2A4.3 4.3 0 0 1 12 7.2a4.3 4.3 0 0 1 7.5 2.6C19.500 15.400 12 20 12 20z",
  trash: "M5 7h14M10 7V4.500h4V7M7 7l1 13h8l1-13M10.500 11v5.500M13.500 11v5.500",
  download: "M12 4v11M7.500 11l4.500 4.500 4.500-4.500M5 20h14",
  compare: "M4 5h7v14H4zM13 5h7v14h-7z",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  dice: "M5 5h14v14H5zM9 9h.01M15 9h.01M12 12h.01M9 15h.01M15 15h.01",
  reset: "M5 5v5h5M5.500 10A7 7 0 1 1 5 14",
  strip: "M3 9h18v6H3zM7.500 9v6M12 9v6M16.500 9v6",
  picture: "M4 5h16v14H4zM4 16l4.500-4.500 4 4 2.500-2.500L20 17M15.500 9h.01",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 3v1.500M12 19.500V21M3 12h1.500M19.500 12H21M5.600 5.600l1 1M17.400 17.400l1 1M5.600 18.400l1-1M17.400 6.600l1-1",
  moon: "M19 14.500A7.500 7.500 0 0 1 9.500 5a7.500 7.500 0 1 0 9.500 9.500z",
  system: "M4 5h16v11H4zM9 20h6M12 16v4",
  search: "M10.500 4.500a6 6 0 1 0 0 12 6 6 0 0 0 0-12zM15 15l5 5",
  sliders: "M4 7h9M17 7h3M15 5v4M4 12h3M11 12h9M9 10v4M4 17h9M17 17h3M15 15v4",
  check: "M5 12.500l4.500 4.500L19 7.500",
  brush: "M14 4l6 6-8 8a4 4 0 0 1-3 1H4c2-1 1-4 3-6zM11 7l6 6",
  eraser: "M9 19h11M4.500 13.500L13 5l6 6-8 8H8z M8.500 9.500l6 6",
  invert: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16M12 8h5M12 12h7M12 16h5",
  expand: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  vary: "M4 16c4 0 4-8 8-8s4 8 8 8M4 8c2 0 3 2 4 4M16 12c1 2 2 4 4 4",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, filled = false }: { name: IconName; filled?: boolean }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" fill={filled ? "currentColor" : "none"}>
      <path d={PATHS[name]} stroke="currentColor" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round" />
    </svg>
  );
}

interface IconButtonProps {
  icon: IconName;
  label: string;
  onClick: () => void;
  filled?: boolean;
  pressed?: boolean;
  class?: string;
  disabled?: boolean;
}

export function IconButton({
  icon,
  label,
  onClick,
  filled = false,
  pressed,
  class: more = "",
  disabled,
}: IconButtonProps) {
  return (
    <button
      type="button"
      class={`icon-button ${more}`}
      aria-label={label}
      title={label}
      aria-pressed={pressed}
      disabled={disabled}
      onClick={(event) => {
        event.stopPropagation();
        onClick();
      }}
    >
      <Icon name={icon} filled={filled} />
    </button>
  );
}
